import { Filter, selectPage, type Page, type PageRequest } from '../paging.ts';
import type { Queryable } from '../pool.ts';
import { toCamel } from '../rows.ts';

interface StoredSnapshot {
  provider: string;
  id: string;
  sizeBytes: number;
  meta: Record<string, string>;
}

export interface E2bSnapshotRow {
  id: string;
  teamId: string;
  sandboxId: string;
  name: string | null;
  /** null until the provider has answered. */
  ref: StoredSnapshot | null;
  createdAt: Date;
}

const COLUMNS = 'id, team_id, sandbox_id, name, ref, created_at';

/** Before the provider is asked. False: the team has `limit` of them. */
export async function insertE2bSnapshot(
  db: Queryable,
  draft: Omit<E2bSnapshotRow, 'ref' | 'createdAt'>,
  limit: number,
): Promise<boolean> {
  const result = await db.query(
    `INSERT INTO e2b_snapshots (id, team_id, sandbox_id, name) SELECT $1, $2, $3, $4
     WHERE (SELECT count(*) FROM e2b_snapshots WHERE team_id = $2) < $5`,
    [draft.id, draft.teamId, draft.sandboxId, draft.name, limit],
  );
  return result.rowCount === 1;
}

export async function putE2bSnapshotRef(db: Queryable, id: string, ref: StoredSnapshot): Promise<void> {
  await db.query('UPDATE e2b_snapshots SET ref = $2 WHERE id = $1', [id, JSON.stringify(ref)]);
}

/** By id, or the newest of that name. */
export async function findE2bSnapshot(db: Queryable, teamId: string, id: string): Promise<E2bSnapshotRow | undefined> {
  const result = await db.query(
    `SELECT ${COLUMNS} FROM e2b_snapshots WHERE team_id = $1 AND (id = $2 OR name = $2) AND ref IS NOT NULL
     ORDER BY (id = $2) DESC, created_at DESC LIMIT 1`,
    [teamId, id],
  );
  return result.rows[0] === undefined ? undefined : toCamel<E2bSnapshotRow>(result.rows[0] as object);
}

export async function deleteE2bSnapshot(db: Queryable, id: string): Promise<void> {
  await db.query('DELETE FROM e2b_snapshots WHERE id = $1', [id]);
}

export function listE2bSnapshots(
  db: Queryable,
  where: { teamId: string; sandboxId: string | undefined; name: string | undefined },
  page: PageRequest,
): Promise<Page<E2bSnapshotRow>> {
  const filter = new Filter()
    .add('team_id = ?', where.teamId)
    .add('sandbox_id = ?', where.sandboxId)
    .add('name = ?', where.name)
    .addFixed('ref IS NOT NULL');
  return selectPage<E2bSnapshotRow>(db, `SELECT ${COLUMNS} FROM e2b_snapshots`, filter, page);
}

/** Rows whose snapshot was never made. */
export async function deleteE2bSnapshotsUnmade(db: Queryable, afterMs: number): Promise<void> {
  await db.query(
    'DELETE FROM e2b_snapshots WHERE ref IS NULL AND created_at < now() - make_interval(secs => $1 / 1000.0)',
    [afterMs],
  );
}

/** Provider ids of all that somebody may start from. */
export async function listE2bSnapshotRefs(db: Queryable): Promise<Set<string>> {
  const result = await db.query<{ id: string }>(`SELECT ref->>'id' AS id FROM e2b_snapshots WHERE ref IS NOT NULL`);
  return new Set(result.rows.map((row) => row.id));
}
