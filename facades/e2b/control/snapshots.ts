import {
  deleteE2bSnapshot,
  findE2bSnapshot,
  insertE2bSnapshot,
  listE2bSnapshots,
  putE2bSnapshotRef,
  type E2bSnapshotRow,
} from '../../../db/queries/e2b-snapshots.ts';
import { parseWith, readJson, WireError } from '../http.ts';
import { LIMITS } from '../../../contracts/limits.ts';
import { bounded, newWireId, refOf, requireSandbox } from '../sandboxes.ts';
import type { ControlAnswer, ControlRequest } from './routes.ts';
import { snapshotBody, snapshotsQuery } from './schemas.ts';

export async function create({ deps, principal, req, id }: ControlRequest): Promise<ControlAnswer> {
  const body = await readJson(req, snapshotBody);
  const sandbox = await requireSandbox(deps, principal.teamId, id);
  const from = await refOf(deps, sandbox);
  const snapshot = { id: newWireId('s'), teamId: principal.teamId, sandboxId: id, name: body.name ?? null };
  if (!(await insertE2bSnapshot(deps.pool, snapshot, LIMITS.e2bSnapshotsPerTeam))) {
    throw new WireError(429, `this team has ${LIMITS.e2bSnapshotsPerTeam} snapshots already`);
  }
  try {
    await putE2bSnapshotRef(deps.pool, snapshot.id, await deps.provider.snapshot(from, snapshot.id, bounded()));
  } catch (error) {
    await deleteE2bSnapshot(deps.pool, snapshot.id);
    throw error;
  }
  return { status: 201, body: render(snapshot) };
}

export async function list({ deps, principal, query }: ControlRequest): Promise<ControlAnswer> {
  const asked = parseWith(snapshotsQuery, query);
  const page = await listE2bSnapshots(
    deps.pool,
    { teamId: principal.teamId, sandboxId: asked.sandboxID, name: asked.name },
    { limit: asked.limit ?? LIMITS.e2bPageSize, cursor: asked.nextToken },
  );
  const headers: Record<string, string> = page.nextPage === null ? {} : { 'x-next-token': page.nextPage };
  return { status: 200, body: page.data.map(render), headers };
}

/** Snapshots are templates on this wire; there are no others to delete. */
export async function remove({ deps, principal, id }: ControlRequest): Promise<ControlAnswer> {
  const snapshot = await findE2bSnapshot(deps.pool, principal.teamId, id);
  if (snapshot === undefined || snapshot.ref === null) throw new WireError(404, `snapshot ${id} not found`);
  // The provider first: a row without a snapshot is deleted again, a snapshot without a row would stay for ever.
  await deps.provider.deleteSnapshot(snapshot.ref, bounded());
  await deleteE2bSnapshot(deps.pool, snapshot.id);
  return { status: 204 };
}

function render(snapshot: Pick<E2bSnapshotRow, 'id' | 'name'>): object {
  return { snapshotID: snapshot.id, names: snapshot.name === null ? [] : [snapshot.name] };
}
