import type { CreatedRange, Page, PageRequest } from '../paging.ts';
import { Filter, selectPage } from '../paging.ts';
import type { Queryable } from '../pool.ts';

export type EgressState = 'started' | 'completed' | 'failed' | 'denied';
export type EgressDecision = 'allow' | 'deny' | 'ask';

/** One request of a sandbox as the audit has it. */
export interface EgressRequestRow {
  id: string;
  sandboxId: string;
  seq: number;
  /** null: a sandbox of an E2B program. */
  sessionId: string | null;
  teamId: string;
  state: EgressState;
  decision: EgressDecision;
  rule: string;
  code: string | null;
  method: string | null;
  host: string | null;
  port: number | null;
  isTls: boolean;
  path: string | null;
  status: number | null;
  bytesOut: number;
  bytesIn: number;
  durationMs: number | null;
  credentials: string[];
  approvalId: string | null;
  error: string | null;
  /** How many refusals the row stands for. */
  count: number;
  createdAt: Date;
  endedAt: Date | null;
}

/** The same as the broker writes it: times with microseconds, so that requests of one millisecond keep their order. */
export type EgressRequestDraft = Omit<EgressRequestRow, 'createdAt' | 'endedAt'> & {
  createdAt: string;
  endedAt: string | null;
};

const COLUMNS = `sandbox_id, seq, id, session_id, team_id, state, decision, rule, code, method, host, port, is_tls, path, status,
  bytes_out, bytes_in, duration_ms, credentials, approval_id, error, count, created_at, ended_at`;
const RECORD = `r(sandbox_id text, seq bigint, id text, session_id text, team_id text, state text, decision text, rule text,
  code text, method text, host text, port int, is_tls boolean, path text, status int, bytes_out bigint, bytes_in bigint,
  duration_ms int, credentials jsonb, approval_id text, error text, count int, created_at timestamptz, ended_at timestamptz)`;

function recordsOf(rows: readonly EgressRequestDraft[]): string {
  return JSON.stringify(
    rows.map((row) => ({
      ...row,
      sandbox_id: row.sandboxId,
      session_id: row.sessionId,
      team_id: row.teamId,
      is_tls: row.isTls,
      bytes_out: row.bytesOut,
      bytes_in: row.bytesIn,
      duration_ms: row.durationMs,
      approval_id: row.approvalId,
      created_at: row.createdAt,
      ended_at: row.endedAt,
    })),
  );
}

/** All or none. Throws a unique violation when another process gave out the same numbers. */
export async function insertEgressRequests(db: Queryable, rows: readonly EgressRequestDraft[]): Promise<void> {
  if (rows.length === 0) return;
  await db.query(
    `INSERT INTO egress_requests (${COLUMNS}) SELECT ${COLUMNS} FROM jsonb_to_recordset($1::jsonb) AS ${RECORD}`,
    [recordsOf(rows)],
  );
}

/** What became of requests that were written as started. */
export async function endEgressRequests(db: Queryable, rows: readonly EgressRequestDraft[]): Promise<void> {
  if (rows.length === 0) return;
  await db.query(
    `UPDATE egress_requests e SET state = r.state, decision = r.decision, code = r.code, status = r.status,
       bytes_out = r.bytes_out, bytes_in = r.bytes_in, duration_ms = r.duration_ms, error = r.error, ended_at = r.ended_at
     FROM jsonb_to_recordset($1::jsonb) AS ${RECORD} WHERE e.id = r.id`,
    [recordsOf(rows)],
  );
}

/** What came to refusals that one row stands for: where they differ, it says nothing. */
export async function countEgressRefusals(db: Queryable, rows: readonly EgressRequestDraft[]): Promise<void> {
  if (rows.length === 0) return;
  await db.query(
    `UPDATE egress_requests e SET count = r.count, rule = r.rule, method = r.method, host = r.host, port = r.port, path = r.path,
       ended_at = r.ended_at
     FROM jsonb_to_recordset($1::jsonb) AS ${RECORD} WHERE e.id = r.id`,
    [recordsOf(rows)],
  );
}

/** The last number given out; 0: none yet. */
export async function lastEgressSeq(db: Queryable, sandboxId: string): Promise<number> {
  const result = await db.query<{ seq: number | null }>(
    'SELECT max(seq) AS seq FROM egress_requests WHERE sandbox_id = $1',
    [sandboxId],
  );
  return result.rows[0]?.seq ?? 0;
}

/** False when a value of this name was never put into a request of the session: then it cannot have come back. */
export async function wasCredentialUsed(db: Queryable, sessionId: string, name: string): Promise<boolean> {
  const result = await db.query(
    'SELECT 1 FROM egress_requests WHERE session_id = $1 AND jsonb_exists(credentials, $2) LIMIT 1',
    [sessionId, name],
  );
  return result.rowCount !== 0;
}

/** True when the team has a record of what this sandbox asked: it outlives the sandbox. */
export async function hasEgressRequests(db: Queryable, teamId: string, sandboxId: string): Promise<boolean> {
  const result = await db.query('SELECT 1 FROM egress_requests WHERE sandbox_id = $1 AND team_id = $2 LIMIT 1', [
    sandboxId,
    teamId,
  ]);
  return result.rowCount !== 0;
}

export interface EgressFilter {
  teamId?: string;
  sessionId?: string;
  sandboxId?: string | undefined;
  state?: EgressState | undefined;
  decision?: EgressDecision | undefined;
  host?: string | undefined;
  credential?: string | undefined;
  created: CreatedRange;
}

export async function listEgressRequests(
  db: Queryable,
  where: EgressFilter,
  page: PageRequest,
): Promise<Page<EgressRequestRow>> {
  const filter = new Filter()
    .add('team_id = ?', where.teamId)
    .add('session_id = ?', where.sessionId)
    .add('sandbox_id = ?', where.sandboxId)
    .add('state = ?', where.state)
    .add('decision = ?', where.decision)
    .add('host = ?', where.host)
    .add('jsonb_exists(credentials, ?)', where.credential)
    .addCreated(where.created);
  return selectPage<EgressRequestRow>(db, `SELECT ${COLUMNS} FROM egress_requests`, filter, page);
}
