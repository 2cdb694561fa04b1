import type { Queryable } from '../pool.ts';
import { toCamel } from '../rows.ts';

/** A pool in one of its windows: where money is counted. */
export interface BudgetWindow {
  budgetId: string;
  windowKey: string;
}

export interface LeaseAsk extends BudgetWindow {
  needMicros: number;
  /** Taken on top where there is plenty, so that the next calls need not ask. */
  extraMicros: number;
}

export interface LeaseGrant extends BudgetWindow {
  grantedMicros: number;
  spentMicros: number;
  /** Of all gateways, this grant included. */
  reservedMicros: number;
}

/** What a call changes in one window: money spent, and reserved money that is none any more. */
export interface WindowChange extends BudgetWindow {
  spentMicros: number;
  releasedMicros: number;
}

/** A quarter of what is left over goes into slices ahead of need: enough for speed, and others still find some. */
const EXTRA_SHARE = 4;

/** Registers a process that may hold money. */
export async function insertOwner(db: Queryable, owner: string, leaseMs: number): Promise<void> {
  await db.query(
    `INSERT INTO budget_owners (owner, lease_expires_at) VALUES ($1, now() + make_interval(secs => $2 / 1000.0))`,
    [owner, leaseMs],
  );
}

/** Renews leases; an owner that is missing in the answer was taken for dead, and holds nothing any more. */
export async function renewOwners(db: Queryable, owners: string[], leaseMs: number): Promise<Set<string>> {
  const result = await db.query<{ owner: string }>(
    `UPDATE budget_owners SET lease_expires_at = now() + make_interval(secs => $2 / 1000.0) WHERE owner = ANY($1)
     RETURNING owner`,
    [owners, leaseMs],
  );
  return new Set(result.rows.map((row) => row.owner));
}

/** Makes the rows that are counted in. */
export async function ensureWindows(db: Queryable, windows: readonly BudgetWindow[]): Promise<void> {
  await db.query(
    `INSERT INTO budget_windows (budget_id, window_key)
     SELECT * FROM (SELECT DISTINCT * FROM unnest($1::text[], $2::text[])) AS w (budget_id, window_key)
     ORDER BY budget_id, window_key ON CONFLICT DO NOTHING`,
    columns(windows),
  );
}

/**
 * Takes money out of pools for a process, in one statement: rows are locked in the order of their ids, each pool gives
 * what it has up to the need, and spent + reserved never passes the hard limit.
 */
export async function leaseSlices(db: Queryable, owner: string, asks: readonly LeaseAsk[]): Promise<LeaseGrant[]> {
  const result = await db.query(
    `WITH asked AS (
       SELECT * FROM unnest($2::text[], $3::text[], $4::bigint[], $5::bigint[]) AS a (budget_id, window_key, need, extra)
     ), locked AS (
       SELECT w.budget_id, w.window_key, w.spent_micros, w.reserved_micros, a.need, a.extra,
         coalesce(b.hard_limit_micros, 9000000000000000) - w.spent_micros - w.reserved_micros AS free
       FROM asked a JOIN budget_windows w USING (budget_id, window_key) JOIN budgets b ON b.id = w.budget_id
       ORDER BY w.budget_id, w.window_key FOR UPDATE OF w
     ), granted AS (
       SELECT *, greatest(0, CASE WHEN free <= need THEN free ELSE need + least(extra, (free - need) / ${EXTRA_SHARE}) END)
         AS micros FROM locked
     ), counted AS (
       UPDATE budget_windows w SET reserved_micros = w.reserved_micros + g.micros, updated_at = now() FROM granted g
       WHERE w.budget_id = g.budget_id AND w.window_key = g.window_key AND g.micros > 0
     ), held AS (
       INSERT INTO budget_slices AS s (owner, budget_id, window_key, reserved_micros)
       SELECT $1, budget_id, window_key, micros FROM granted WHERE micros > 0
       ON CONFLICT (owner, budget_id, window_key) DO UPDATE SET reserved_micros = s.reserved_micros + excluded.reserved_micros
     )
     SELECT budget_id, window_key, micros AS granted_micros, spent_micros, reserved_micros + micros AS reserved_micros
     FROM granted`,
    [owner, ...columns(asks), asks.map((ask) => ask.needMicros), asks.map((ask) => ask.extraMicros)],
  );
  return result.rows.map((row) => toCamel<LeaseGrant>(row as object));
}

/**
 * Counts what was spent and gives reserved money back. Only what the owner still holds is given back: of one that was
 * taken for dead, everything was already. Returns the windows as they are now.
 */
export async function changeWindows(
  db: Queryable,
  owner: string,
  changes: readonly WindowChange[],
): Promise<(BudgetWindow & { spentMicros: number })[]> {
  const result = await db.query(
    `WITH change AS (
       SELECT * FROM unnest($2::text[], $3::text[], $4::bigint[], $5::bigint[]) AS c (budget_id, window_key, spent, released)
     ), locked AS (
       SELECT w.budget_id, w.window_key, c.spent, c.released FROM change c JOIN budget_windows w USING (budget_id, window_key)
       ORDER BY w.budget_id, w.window_key FOR UPDATE OF w
     ), back AS (
       UPDATE budget_slices s SET reserved_micros = s.reserved_micros - l.released FROM locked l
       WHERE s.owner = $1 AND s.budget_id = l.budget_id AND s.window_key = l.window_key
       RETURNING s.budget_id, s.window_key, l.released
     )
     UPDATE budget_windows w SET spent_micros = w.spent_micros + l.spent,
       reserved_micros = w.reserved_micros - coalesce(b.released, 0), updated_at = now()
     FROM locked l LEFT JOIN back b USING (budget_id, window_key)
     WHERE w.budget_id = l.budget_id AND w.window_key = l.window_key
     RETURNING w.budget_id, w.window_key, w.spent_micros`,
    [
      owner,
      ...columns(changes),
      changes.map((change) => change.spentMicros),
      changes.map((change) => change.releasedMicros),
    ],
  );
  return result.rows.map((row) => toCamel<BudgetWindow & { spentMicros: number }>(row as object));
}

/** Forgets slices of an owner that hold nothing. */
export async function dropEmptySlices(db: Queryable, owner: string): Promise<void> {
  await db.query('DELETE FROM budget_slices WHERE owner = $1 AND reserved_micros = 0', [owner]);
}

/** Locks one owner whose lease ran out, so that only one process clears up after it. */
export async function lockDeadOwner(tx: Queryable): Promise<string | undefined> {
  const result = await tx.query<{ owner: string }>(
    'SELECT owner FROM budget_owners WHERE lease_expires_at < now() LIMIT 1 FOR UPDATE SKIP LOCKED',
  );
  return result.rows[0]?.owner;
}

/** Gives back all that an owner holds and ends it. */
export async function releaseOwner(tx: Queryable, owner: string): Promise<void> {
  await tx.query(
    `WITH slices AS (DELETE FROM budget_slices WHERE owner = $1 RETURNING *),
     locked AS (
       SELECT w.budget_id, w.window_key, s.reserved_micros FROM slices s JOIN budget_windows w USING (budget_id, window_key)
       ORDER BY w.budget_id, w.window_key FOR UPDATE OF w
     )
     UPDATE budget_windows w SET reserved_micros = w.reserved_micros - l.reserved_micros, updated_at = now() FROM locked l
     WHERE w.budget_id = l.budget_id AND w.window_key = l.window_key`,
    [owner],
  );
  await tx.query('DELETE FROM budget_owners WHERE owner = $1', [owner]);
}

function columns(windows: readonly BudgetWindow[]): [string[], string[]] {
  return [windows.map((window) => window.budgetId), windows.map((window) => window.windowKey)];
}
