import type { Queryable } from '../pool.ts';
import type { BudgetWindow } from './budget-slices.ts';
import type { LedgerEntry } from './ledger.ts';

/** A call under way: the ledger row it gets should its gateway die, and the windows that pay for it. */
export interface CallIntent {
  entry: LedgerEntry;
  windows: readonly BudgetWindow[];
}

/** The part of a ledger entry that grows while a call runs. */
export type CallProgress = Pick<LedgerEntry, 'id' | 'usage' | 'costMicros' | 'latencyMs' | 'model' | 'provider'>;

export async function insertIntents(db: Queryable, owner: string, intents: readonly CallIntent[]): Promise<void> {
  await db.query(
    `INSERT INTO call_intents (id, owner, entry, windows)
     SELECT i.id, $1, i.entry, i.windows FROM jsonb_to_recordset($2::jsonb) AS i (id text, entry jsonb, windows jsonb)
     ON CONFLICT (id) DO UPDATE SET owner = excluded.owner`,
    [owner, JSON.stringify(intents.map(({ entry, windows }) => ({ id: entry.id, entry, windows })))],
  );
}

/** Notes how far calls have come; of a call that has ended, nothing. */
export async function updateIntents(db: Queryable, progress: readonly CallProgress[]): Promise<void> {
  await db.query(
    `UPDATE call_intents i SET entry = i.entry || p.more
     FROM jsonb_to_recordset($1::jsonb) AS p (id text, more jsonb) WHERE i.id = p.id`,
    [JSON.stringify(progress.map((more) => ({ id: more.id, more })))],
  );
}

export async function deleteIntents(db: Queryable, ids: readonly string[]): Promise<void> {
  await db.query('DELETE FROM call_intents WHERE id = ANY($1)', [ids]);
}

/** Takes the oldest calls a dead owner had under way. */
export async function takeIntents(tx: Queryable, owner: string, limit: number): Promise<CallIntent[]> {
  const result = await tx.query<{ entry: LedgerEntry; windows: BudgetWindow[] }>(
    `DELETE FROM call_intents WHERE id IN (SELECT id FROM call_intents WHERE owner = $1 ORDER BY id LIMIT $2)
     RETURNING entry, windows`,
    [owner, limit],
  );
  return result.rows;
}
