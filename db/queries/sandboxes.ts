import type { IdlePolicy } from '../../contracts/definitions.ts';
import { LIMITS } from '../../contracts/limits.ts';
import type { SandboxControls } from '../../contracts/sandboxes.ts';
import type { SandboxState } from '../../contracts/states.ts';
import type { Queryable } from '../pool.ts';
import { toCamel } from '../rows.ts';

/** A provider's reference to a sandbox: plain JSON. */
interface StoredRef {
  provider: string;
  id: string;
  meta: Record<string, string>;
}

/** A provider's reference to saved files. */
export interface StoredSnapshot extends StoredRef {
  sizeBytes: number;
  /** What agents are to be told of what was made there. */
  note?: string;
  /** Steps of the files that were mounted then. */
  mounted?: string[];
}

/** What a sandbox is made from. */
export type SandboxStart =
  | { kind: 'session'; ref: StoredSnapshot; savedAt: string }
  | { kind: 'environment'; hash: string; ref: StoredSnapshot };

export interface SandboxFailure {
  /** Another turn may try again. */
  turn: number;
  step: string;
  message: string;
}

export interface SandboxRow {
  id: string;
  sessionId: string;
  generation: number;
  provider: string;
  /** null until the provider has answered. */
  ref: StoredRef | null;
  state: SandboxState;
  egressOpen: boolean;
  /** As its provider was told; `SandboxNetwork` of the sandbox port. */
  network: { type: string } | null;
  controls: SandboxControls | null;
  idleSince: Date | null;
  snapshot: StoredSnapshot | null;
  snapshotAt: Date | null;
  start: SandboxStart | null;
  steps: string[];
  preparedAt: Date | null;
  failure: SandboxFailure | null;
  attempt: number;
  note: string | null;
  createdAt: Date;
}

const COLUMN_NAMES = [
  'id',
  'session_id',
  'generation',
  'provider',
  'ref',
  'state',
  'egress_open',
  'network',
  'controls',
  'idle_since',
  'snapshot',
  'snapshot_at',
  'start',
  'steps',
  'prepared_at',
  'failure',
  'attempt',
  'note',
  'created_at',
];
const COLUMNS = COLUMN_NAMES.join(', ');
const COLUMNS_B = COLUMN_NAMES.map((column) => `b.${column}`).join(', ');

const rowOf = (row: unknown): SandboxRow | undefined =>
  row === undefined ? undefined : toCamel<SandboxRow>(row as object);

/** Serialises all sandbox decisions of one session until the transaction ends. */
export async function lockSandboxOf(tx: Queryable, sessionId: string): Promise<void> {
  await tx.query('SELECT pg_advisory_xact_lock(hashtextextended($1, 1))', [sessionId]);
}

/** The session's newest sandbox that is not destroyed. */
export async function currentSandbox(db: Queryable, sessionId: string): Promise<SandboxRow | undefined> {
  const result = await db.query(
    `SELECT ${COLUMNS} FROM sandboxes WHERE session_id = $1 AND state <> 'destroyed' ORDER BY generation DESC LIMIT 1`,
    [sessionId],
  );
  return rowOf(result.rows[0]);
}

/** The session's newest sandbox, whatever became of it. */
export async function lastSandbox(db: Queryable, sessionId: string): Promise<SandboxRow | undefined> {
  const result = await db.query(
    `SELECT ${COLUMNS} FROM sandboxes WHERE session_id = $1 ORDER BY generation DESC LIMIT 1`,
    [sessionId],
  );
  return rowOf(result.rows[0]);
}

/** The newest sandbox of each of some sessions. */
export async function lastSandboxes(db: Queryable, sessionIds: string[]): Promise<Map<string, SandboxRow>> {
  const result = await db.query<{ session_id: string }>(
    `SELECT DISTINCT ON (session_id) ${COLUMNS} FROM sandboxes WHERE session_id = ANY($1)
     ORDER BY session_id, generation DESC`,
    [sessionIds],
  );
  return new Map(result.rows.map((row) => [row.session_id, toCamel<SandboxRow>(row)]));
}

export async function getSandbox(db: Queryable, id: string): Promise<SandboxRow | undefined> {
  const result = await db.query(`SELECT ${COLUMNS} FROM sandboxes WHERE id = $1`, [id]);
  return rowOf(result.rows[0]);
}

/** What earlier sandboxes of a session leave to the next one. */
export interface SandboxPast {
  last: SandboxRow | undefined;
  /** One of them was ready: the agent may remember what was in it. */
  wasReady: boolean;
  saved: { ref: StoredSnapshot; provider: string; savedAt: Date } | null;
  currentTurn: number;
}

export async function readSandboxPast(db: Queryable, sessionId: string): Promise<SandboxPast> {
  const last = await lastSandbox(db, sessionId);
  const result = await db.query<{ was_ready: boolean; current_turn: number }>(
    `SELECT current_turn, EXISTS (SELECT 1 FROM sandboxes WHERE session_id = $1 AND prepared_at IS NOT NULL) AS was_ready
     FROM sessions WHERE id = $1`,
    [sessionId],
  );
  const saved = await db.query<{ snapshot: StoredSnapshot; provider: string; snapshot_at: Date }>(
    `SELECT snapshot, provider, snapshot_at FROM sandboxes WHERE session_id = $1 AND snapshot IS NOT NULL
     ORDER BY snapshot_at DESC LIMIT 1`,
    [sessionId],
  );
  const [row] = saved.rows;
  return {
    last,
    wasReady: result.rows[0]?.was_ready === true,
    saved: row === undefined ? null : { ref: row.snapshot, provider: row.provider, savedAt: row.snapshot_at },
    currentTurn: result.rows[0]?.current_turn ?? 0,
  };
}

/** The row is written before the provider is asked, so a crash in between leaves a trace for the reaper. */
export async function insertSandbox(
  db: Queryable,
  row: {
    id: string;
    sessionId: string;
    provider: string;
    leaseMs: number;
    attempt?: number;
    note?: string | null;
    start?: SandboxStart | null;
  },
): Promise<void> {
  await db.query(
    `INSERT INTO sandboxes (id, session_id, generation, provider, state, lease_expires_at, attempt, note, start)
     SELECT $1, $2, coalesce(max(generation), 0) + 1, $3, 'creating', now() + make_interval(secs => $4 / 1000.0), $5, $6, $7
     FROM sandboxes WHERE session_id = $2`,
    [
      row.id,
      row.sessionId,
      row.provider,
      row.leaseMs,
      row.attempt ?? 1,
      row.note ?? null,
      row.start === undefined || row.start === null ? null : JSON.stringify(row.start),
    ],
  );
}

/** Sets state (and ref) and renews the lease. */
export async function updateSandbox(
  db: Queryable,
  id: string,
  state: SandboxState,
  leaseMs: number,
  ref?: SandboxRow['ref'],
): Promise<void> {
  await db.query(
    `UPDATE sandboxes SET state = $2, ref = coalesce($3, ref),
       lease_expires_at = now() + make_interval(secs => $4 / 1000.0),
       destroyed_at = CASE WHEN $2 = 'destroyed' THEN now() END
     WHERE id = $1 AND state <> 'destroyed'`,
    [id, state, ref === undefined ? null : JSON.stringify(ref), leaseMs],
  );
}

/** Renews the lease of one that runs; false: it sleeps, is about to, or is gone. */
export async function renewSandbox(db: Queryable, id: string, leaseMs: number): Promise<boolean> {
  const result = await db.query(
    `UPDATE sandboxes SET lease_expires_at = now() + make_interval(secs => $2 / 1000.0) WHERE id = $1 AND state = 'running'`,
    [id, leaseMs],
  );
  return result.rowCount !== 0;
}

/** The provider has answered: from here on the sandbox is found by its reference. False: it was given up meanwhile. */
export async function recordCreated(
  db: Queryable,
  id: string,
  made: { ref: StoredRef; network: { type: string }; controls: SandboxControls; steps: string[] },
): Promise<boolean> {
  const result = await db.query(
    `UPDATE sandboxes SET ref = $2, network = $3, controls = $4, steps = $5 WHERE id = $1 AND state <> 'destroyed'`,
    [
      id,
      JSON.stringify(made.ref),
      JSON.stringify(made.network),
      JSON.stringify(made.controls),
      JSON.stringify(made.steps),
    ],
  );
  return result.rowCount !== 0;
}

/** Where the broker is to listen, before it is told; null when it can no longer. */
export async function recordEgress(
  db: Queryable,
  id: string,
  egress: { point: object | null; open: boolean },
): Promise<void> {
  await db.query('UPDATE sandboxes SET egress_point = $2, egress_open = $3 WHERE id = $1', [
    id,
    egress.point === null ? null : JSON.stringify(egress.point),
    egress.open,
  ]);
}

export async function recordStart(db: Queryable, id: string, start: SandboxStart | null): Promise<void> {
  await db.query('UPDATE sandboxes SET start = $2 WHERE id = $1', [id, start === null ? null : JSON.stringify(start)]);
}

/** A step of the preparation is done. */
export async function recordStep(db: Queryable, id: string, step: string): Promise<void> {
  await db.query('UPDATE sandboxes SET steps = steps || to_jsonb($2::text) WHERE id = $1 AND NOT steps ? $2', [
    id,
    step,
  ]);
}

/**
 * A file is mounted, or cannot be, and the agent is told of it with its next result: also of a sandbox of which it was told
 * already.
 */
export async function recordMount(db: Queryable, id: string, step: string, note: string | null): Promise<void> {
  await db.query(
    `UPDATE sandboxes SET steps = steps || to_jsonb($2::text),
       note = CASE WHEN $3::text IS NULL THEN note WHEN told_at IS NULL THEN concat_ws(E'\\n', note, $3::text)
              ELSE $3::text END,
       told_at = CASE WHEN $3::text IS NULL THEN told_at END
     WHERE id = $1 AND NOT steps ? $2`,
    [id, step, note],
  );
}

export async function recordPrepared(db: Queryable, id: string): Promise<void> {
  await db.query('UPDATE sandboxes SET prepared_at = coalesce(prepared_at, now()) WHERE id = $1', [id]);
}

/** Something the agent is to be told of with its next result, beside what it was not told yet. */
export async function addNote(db: Queryable, id: string, note: string): Promise<void> {
  await db.query(
    `UPDATE sandboxes SET note = CASE WHEN told_at IS NULL THEN concat_ws(E'\\n', note, $2::text) ELSE $2::text END, told_at = NULL
     WHERE id = $1 AND (told_at IS NOT NULL OR position($2::text IN coalesce(note, '')) = 0)`,
    [id, note],
  );
}

/** What the agent was not told yet of the sandbox a running effect is in; it counts as told from here on. */
export async function takeNote(tx: Queryable, effect: { id: string; generation: number }): Promise<string | null> {
  const result = await tx.query<{ note: string }>(
    `UPDATE sandboxes b SET told_at = now() FROM effects e
     WHERE e.id = $1 AND e.state = 'started' AND e.generation = $2 AND b.id = e.sandbox_id
       AND b.note IS NOT NULL AND b.told_at IS NULL RETURNING b.note`,
    [effect.id, effect.generation],
  );
  return result.rows[0]?.note ?? null;
}

/** Its preparation failed for good; only another turn tries again. */
export async function recordFailure(
  tx: Queryable,
  id: string,
  failure: Omit<SandboxFailure, 'turn'>,
): Promise<boolean> {
  const result = await tx.query(
    `UPDATE sandboxes b SET failure = $2::jsonb || jsonb_build_object('turn', s.current_turn)
     FROM sessions s WHERE b.id = $1 AND s.id = b.session_id AND b.failure IS NULL`,
    [id, JSON.stringify(failure)],
  );
  return result.rowCount !== 0;
}

/** False when the sandbox must be woken, or made anew, before something begins in it. */
export async function isSandboxRunning(tx: Queryable, id: string): Promise<boolean> {
  const result = await tx.query(`SELECT 1 FROM sandboxes WHERE id = $1 AND state = 'running'`, [id]);
  return result.rowCount !== 0;
}

/** Saved files of a sandbox; what they replace is returned, to be deleted. */
export async function recordSnapshot(
  tx: Queryable,
  id: string,
  snapshot: StoredSnapshot,
): Promise<{ provider: string; ref: StoredSnapshot }[]> {
  await tx.query('UPDATE sandboxes SET snapshot = $2, snapshot_at = now() WHERE id = $1', [
    id,
    JSON.stringify(snapshot),
  ]);
  const older = await tx.query<{ provider: string; ref: StoredSnapshot }>(
    `WITH old AS (
       SELECT o.id, o.provider, o.snapshot FROM sandboxes o JOIN sandboxes b ON b.id = $1
       WHERE o.session_id = b.session_id AND o.id <> b.id AND o.snapshot IS NOT NULL)
     UPDATE sandboxes SET snapshot = NULL, snapshot_at = NULL FROM old WHERE sandboxes.id = old.id
     RETURNING old.provider, old.snapshot AS ref`,
    [id],
  );
  return older.rows;
}

/** Its snapshot is gone. */
export async function forgetSnapshot(db: Queryable, id: string): Promise<void> {
  await db.query('UPDATE sandboxes SET snapshot = NULL, snapshot_at = NULL WHERE id = $1', [id]);
}

const NO_COMMAND = `NOT EXISTS (SELECT 1 FROM effects e WHERE e.sandbox_id = b.id AND e.state = 'started')`;

function idleFor(field: keyof IdlePolicy, standardMs: number | null): string {
  const seconds = `(s.environment->'idle'->>'${field}')::numeric`;
  const limit = standardMs === null ? seconds : `coalesce(${seconds}, ${standardMs / 1_000})`;
  return `b.idle_since < now() - make_interval(secs => ${limit})`;
}

/** What the idle policy of an environment asks for, by the database's clock. */
const DUE = {
  pause: `b.state = 'running' AND ${idleFor('pause_after_seconds', LIMITS.sandboxIdlePauseMs)}`,
  snapshot: `b.state IN ('running', 'paused') AND b.ref IS NOT NULL AND b.prepared_at IS NOT NULL
    AND (b.snapshot_at IS NULL OR b.snapshot_at < b.idle_since) AND ${idleFor('snapshot_after_seconds', null)}`,
  destroy: `b.state IN ('running', 'paused') AND ${idleFor('destroy_after_seconds', null)}`,
} as const;
export type IdleAct = keyof typeof DUE;

/** Sandboxes of idle sessions whose environment says that something is to be done with them now. */
export async function listDue(db: Queryable, act: IdleAct, limit: number): Promise<SandboxRow[]> {
  const result = await db.query(
    `SELECT ${COLUMNS_B} FROM sandboxes b JOIN sessions s ON s.id = b.session_id
     WHERE s.status = 'idle' AND b.idle_since IS NOT NULL AND ${DUE[act]} AND ${NO_COMMAND}
     ORDER BY b.idle_since LIMIT $1`,
    [limit],
  );
  return result.rows.map((row) => toCamel<SandboxRow>(row as object));
}

/** The same for one sandbox; `FOR UPDATE` of its session keeps a turn from beginning meanwhile. */
export async function findDue(tx: Queryable, act: IdleAct, id: string): Promise<SandboxRow | undefined> {
  const result = await tx.query(
    `SELECT ${COLUMNS_B} FROM sandboxes b JOIN sessions s ON s.id = b.session_id
     WHERE b.id = $1 AND s.status = 'idle' AND b.idle_since IS NOT NULL AND ${DUE[act]} AND ${NO_COMMAND}`,
    [id],
  );
  return rowOf(result.rows[0]);
}

/** Running sandboxes whose lease ran out and where no command runs: to be paused (their files are kept). */
export async function listExpiredLeases(db: Queryable, limit: number): Promise<SandboxRow[]> {
  const result = await db.query(
    `SELECT ${COLUMNS_B} FROM sandboxes b WHERE b.state = 'running' AND b.lease_expires_at < now() AND ${NO_COMMAND}
     ORDER BY b.lease_expires_at LIMIT $1`,
    [limit],
  );
  return result.rows.map((row) => toCamel<SandboxRow>(row as object));
}

/** True while nobody has renewed the lease of a sandbox in which no command runs. */
export async function hasExpired(tx: Queryable, id: string): Promise<boolean> {
  const result = await tx.query(
    `SELECT 1 FROM sandboxes b WHERE b.id = $1 AND b.state = 'running' AND b.lease_expires_at < now() AND ${NO_COMMAND}`,
    [id],
  );
  return result.rowCount !== 0;
}
