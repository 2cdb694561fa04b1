import type { SandboxState } from '../../contracts/states.ts';
import type { Queryable } from '../pool.ts';
import { toCamel } from '../rows.ts';
import type { SandboxRow, StoredSnapshot } from './sandboxes.ts';

/** Sandboxes that must go: their session has ended, or whoever began to make them never came to the end of it. */
export async function listDoomedSandboxes(db: Queryable, limit: number): Promise<SandboxRow[]> {
  const result = await db.query(
    `SELECT b.* FROM sandboxes b JOIN sessions s ON s.id = b.session_id
     WHERE b.state <> 'destroyed'
       AND (s.status = 'terminated' OR (b.state = 'creating' AND b.lease_expires_at < now())) ORDER BY b.created_at LIMIT $1`,
    [limit],
  );
  return result.rows.map((row) => toCamel<SandboxRow>(row as object));
}

/** Sandboxes that are gone and that the broker may still listen for. */
export async function listOpenEgress(db: Queryable, limit: number): Promise<{ id: string }[]> {
  const result = await db.query<{ id: string }>(
    `SELECT id FROM sandboxes WHERE egress_open AND state = 'destroyed' ORDER BY id LIMIT $1`,
    [limit],
  );
  return result.rows;
}

/** What the record knows of the provider's sandboxes: by the provider's id and by ours. */
export interface KnownSandbox {
  id: string;
  sessionId: string;
  provider: string;
  refId: string | null;
  state: SandboxState;
}

/** Those of `ids` (ours) and `refIds` (the provider's) that have a row. */
export async function findKnownSandboxes(
  db: Queryable,
  provider: string,
  wanted: { ids: string[]; refIds: string[] },
): Promise<KnownSandbox[]> {
  const result = await db.query(
    `SELECT id, session_id, provider, ref->>'id' AS ref_id, state FROM sandboxes
     WHERE provider = $1 AND (id = ANY($2) OR ref->>'id' = ANY($3)) ORDER BY generation`,
    [provider, wanted.ids, wanted.refIds],
  );
  return result.rows.map((row) => toCamel<KnownSandbox>(row as object));
}

/** Saved files of sessions that have ended. */
export async function listLeftSnapshots(
  db: Queryable,
  limit: number,
): Promise<{ id: string; provider: string; ref: StoredSnapshot }[]> {
  const result = await db.query<{ id: string; provider: string; ref: StoredSnapshot }>(
    `SELECT b.id, b.provider, b.snapshot AS ref FROM sandboxes b JOIN sessions s ON s.id = b.session_id
     WHERE b.snapshot IS NOT NULL AND s.status = 'terminated' ORDER BY b.id LIMIT $1`,
    [limit],
  );
  return result.rows;
}

/** Saved files of one session. */
export async function listSnapshotsOf(
  db: Queryable,
  sessionId: string,
): Promise<{ id: string; provider: string; ref: StoredSnapshot }[]> {
  const result = await db.query<{ id: string; provider: string; ref: StoredSnapshot }>(
    'SELECT id, provider, snapshot AS ref FROM sandboxes WHERE session_id = $1 AND snapshot IS NOT NULL ORDER BY id LIMIT 100',
    [sessionId],
  );
  return result.rows;
}

/** Ids of snapshots that a session or an environment still starts from, among `ids`. */
export async function findKnownSnapshots(db: Queryable, provider: string, ids: string[]): Promise<Set<string>> {
  const result = await db.query<{ id: string }>(
    `SELECT snapshot->>'id' AS id FROM sandboxes WHERE provider = $1 AND snapshot->>'id' = ANY($2)
     UNION SELECT start->'ref'->>'id' FROM sandboxes
       WHERE provider = $1 AND ref IS NULL AND state <> 'destroyed' AND start->'ref'->>'id' = ANY($2)
     UNION SELECT ref->>'id' FROM environment_snapshots WHERE provider = $1 AND ref->>'id' = ANY($2)`,
    [provider, ids],
  );
  return new Set(result.rows.map((row) => row.id));
}
