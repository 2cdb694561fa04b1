import { Filter, selectPage, type Page, type PageRequest } from '../paging.ts';
import type { Queryable } from '../pool.ts';
import type { ProgramEgress } from './egress-policies.ts';
import { toCamel } from '../rows.ts';

/** The provider's reference, as `sandboxes.ref` holds it. */
interface StoredRef {
  provider: string;
  id: string;
  meta: Record<string, string>;
}

export interface E2bSandboxRow {
  id: string;
  teamId: string;
  template: string;
  metadata: Record<string, string>;
  /** null until the provider has answered. */
  ref: StoredRef | null;
  state: 'running' | 'paused' | 'ended';
  /** False while the provider has yet to follow `state`. */
  settled: boolean;
  keepMemory: boolean;
  onTimeout: 'kill' | 'pause';
  autoResume: boolean;
  network: Record<string, unknown>;
  /** What of it holds: the broker reads it. */
  egress: ProgramEgress;
  /** Where the broker listens for it, as the provider gave it; null: nowhere. */
  egressPoint: unknown;
  cpus: number;
  memoryBytes: number;
  diskBytes: number;
  createdAt: Date;
  expiresAt: Date;
}

const COLUMNS = `id, team_id, template, metadata, ref, state, settled, keep_memory, on_timeout, auto_resume, network, egress,
  egress_point, cpus, memory_bytes, disk_bytes, created_at, expires_at`;

export type E2bSandboxDraft = Omit<
  E2bSandboxRow,
  'ref' | 'state' | 'settled' | 'egressPoint' | 'createdAt' | 'expiresAt'
> & {
  createdBy: string;
  timeoutMs: number;
};

/**
 * The row comes before the sandbox. False: the team has `limit` of them running. Under a lock of the team: whoever lists
 * after its own insert sees every older row, so that programs can agree on the oldest of two.
 */
export async function insertE2bSandbox(tx: Queryable, draft: E2bSandboxDraft, limit: number): Promise<boolean> {
  await tx.query('SELECT pg_advisory_xact_lock(hashtextextended($1, 17))', [draft.teamId]);
  const { id, teamId, createdBy, template, keepMemory, onTimeout, autoResume, cpus, memoryBytes, diskBytes } = draft;
  const values: unknown[] = [id, teamId, createdBy, template, JSON.stringify(draft.metadata), keepMemory, onTimeout];
  values.push(
    autoResume,
    JSON.stringify(draft.network),
    cpus,
    memoryBytes,
    diskBytes,
    draft.timeoutMs,
    limit,
    JSON.stringify(draft.egress),
  );
  const result = await tx.query(
    `INSERT INTO e2b_sandboxes (id, team_id, created_by, template, metadata, state, keep_memory, on_timeout, auto_resume,
       network, cpus, memory_bytes, disk_bytes, expires_at, egress)
     SELECT $1, $2, $3, $4, $5, 'running', $6, $7, $8, $9, $10, $11, $12, now() + make_interval(secs => $13 / 1000.0), $15
     WHERE (SELECT count(*) FROM e2b_sandboxes WHERE team_id = $2 AND state = 'running') < $14`,
    values,
  );
  return result.rowCount === 1;
}

export async function getE2bSandbox(db: Queryable, id: string): Promise<E2bSandboxRow | undefined> {
  const result = await db.query(`SELECT ${COLUMNS} FROM e2b_sandboxes WHERE id = $1 AND state <> 'ended'`, [id]);
  return result.rows[0] === undefined ? undefined : toCamel<E2bSandboxRow>(result.rows[0] as object);
}

/** The provider has made it. False: it was ended meanwhile. */
export async function putE2bRef(db: Queryable, id: string, ref: StoredRef): Promise<boolean> {
  const result = await db.query(
    `UPDATE e2b_sandboxes SET ref = $2, settled = (state = 'running'), updated_at = now() WHERE id = $1
     RETURNING state = 'running' AS alive`,
    [id, JSON.stringify(ref)],
  );
  return (result.rows[0] as { alive: boolean } | undefined)?.alive ?? false;
}

/** Moves it, as long as it is where the caller saw it. Its provider has yet to follow. */
export async function moveE2bSandbox(
  db: Queryable,
  id: string,
  from: E2bSandboxRow['state'],
  to: E2bSandboxRow['state'],
  keepMemory?: boolean,
): Promise<boolean> {
  const result = await db.query(
    `UPDATE e2b_sandboxes SET state = $3, settled = false, keep_memory = coalesce($4, keep_memory), updated_at = now()
     WHERE id = $1 AND state = $2`,
    [id, from, to, keepMemory ?? null],
  );
  return result.rowCount === 1;
}

/** The provider has followed. */
export async function settleE2bSandbox(db: Queryable, id: string, state: E2bSandboxRow['state']): Promise<void> {
  await db.query('UPDATE e2b_sandboxes SET settled = true, updated_at = now() WHERE id = $1 AND state = $2', [
    id,
    state,
  ]);
}

/** Sets when it ends; with `onlyLater`, only when that is later than it would. */
export async function setE2bTimeout(
  db: Queryable,
  id: string,
  timeoutMs: number,
  options: { onlyLater: boolean },
): Promise<void> {
  await db.query(
    `UPDATE e2b_sandboxes SET expires_at = CASE WHEN $3 THEN greatest(expires_at, asked.at) ELSE asked.at END
     FROM (SELECT now() + make_interval(secs => $2 / 1000.0) AS at) AS asked WHERE id = $1 AND state <> 'ended'`,
    [id, timeoutMs, options.onlyLater],
  );
}

export async function setE2bNetwork(
  db: Queryable,
  id: string,
  network: Record<string, unknown>,
  egress: ProgramEgress,
): Promise<void> {
  await db.query('UPDATE e2b_sandboxes SET network = $2, egress = $3, updated_at = now() WHERE id = $1', [
    id,
    JSON.stringify(network),
    JSON.stringify(egress),
  ]);
}

/** Where the broker is to listen, before it is told: one that starts anew finds it here. */
export async function setE2bEgressPoint(db: Queryable, id: string, point: object | null): Promise<void> {
  await db.query('UPDATE e2b_sandboxes SET egress_point = $2 WHERE id = $1', [
    id,
    point === null ? null : JSON.stringify(point),
  ]);
}

export interface E2bSandboxFilter {
  teamId: string;
  metadata: Record<string, string> | undefined;
  states: readonly string[];
  template: string | undefined;
  startedAfter: string | undefined;
}

export function listE2bSandboxes(
  db: Queryable,
  asked: E2bSandboxFilter,
  page: PageRequest,
): Promise<Page<E2bSandboxRow>> {
  const filter = new Filter()
    .add('team_id = ?', asked.teamId)
    .add('state = ANY(?)', asked.states)
    .add('metadata @> ?::jsonb', asked.metadata === undefined ? undefined : JSON.stringify(asked.metadata))
    .add('template = ?', asked.template)
    .add('created_at > ?', asked.startedAfter);
  return selectPage<E2bSandboxRow>(db, `SELECT ${COLUMNS} FROM e2b_sandboxes`, filter, page);
}

/**
 * What is left to do: sandboxes whose time is over, those a crash left between row and provider, paused ones nobody wants
 * any more. `graceMs`: how long whoever began it may still be at it.
 */
export async function listE2bDue(
  db: Queryable,
  options: { graceMs: number; pausedMs: number; limit: number },
): Promise<E2bSandboxRow[]> {
  const result = await db.query(
    `SELECT ${COLUMNS} FROM e2b_sandboxes
     WHERE (state = 'running' AND expires_at < now())
       OR (state = 'paused' AND updated_at < now() - make_interval(secs => $2 / 1000.0))
       OR (NOT settled AND (state <> 'running' OR ref IS NULL) AND updated_at < now() - make_interval(secs => $1 / 1000.0))
     ORDER BY updated_at LIMIT $3`,
    [options.graceMs, options.pausedMs, options.limit],
  );
  return result.rows.map((row) => toCamel<E2bSandboxRow>(row as object));
}

/** Those that have ended since long, with the list of their commands. */
export async function deleteE2bEnded(db: Queryable, keptMs: number): Promise<void> {
  await db.query(
    `DELETE FROM e2b_sandboxes WHERE state = 'ended' AND settled
       AND updated_at < now() - make_interval(secs => $1 / 1000.0)`,
    [keptMs],
  );
}

/** Provider ids of all that may be in use. */
export async function listE2bRefs(db: Queryable): Promise<Set<string>> {
  const result = await db.query<{ id: string }>(
    `SELECT ref->>'id' AS id FROM e2b_sandboxes WHERE state <> 'ended' AND ref IS NOT NULL`,
  );
  return new Set(result.rows.map((row) => row.id));
}

/** Ids of running sandboxes: a signed URL names its sandbox by nothing but the signature. */
export async function listE2bRunningIds(db: Queryable, limit: number): Promise<string[]> {
  const result = await db.query<{ id: string }>(
    `SELECT id FROM e2b_sandboxes WHERE state <> 'ended' ORDER BY created_at DESC LIMIT $1`,
    [limit],
  );
  return result.rows.map((row) => row.id);
}
