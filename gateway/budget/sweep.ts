import { withTransaction, type Pool } from '../../db/pool.ts';
import { changeWindows, ensureWindows, lockDeadOwner, releaseOwner } from '../../db/queries/budget-slices.ts';
import { takeIntents, type CallIntent } from '../../db/queries/call-intents.ts';
import { recordLedgerEntries } from '../../db/queries/ledger.ts';
import { sumChanges } from './changes.ts';

/** Bounds one transaction; a gateway runs fewer calls at once. */
const CALLS = 5_000;

/**
 * Clears up after one gateway whose lease ran out, if there is one: each call it had under way is charged what it is
 * known to have used, and all money it held goes back. Returns how many calls were charged.
 */
export async function sweepDeadOwner(pool: Pool): Promise<{ owner: string; calls: number } | undefined> {
  return withTransaction(pool, async (tx) => {
    const owner = await lockDeadOwner(tx);
    if (owner === undefined) return undefined;
    const intents = await takeIntents(tx, owner, CALLS);
    const recorded = await recordLedgerEntries(
      tx,
      intents.map((intent) => intent.entry),
    );
    const changes = intents.filter(({ entry }) => recorded.has(entry.id)).flatMap(changesOf);
    if (changes.length > 0) {
      await ensureWindows(tx, changes);
      await changeWindows(tx, owner, sumChanges(changes));
    }
    await releaseOwner(tx, owner);
    return { owner, calls: intents.length };
  });
}

function changesOf({ entry, windows }: CallIntent) {
  return windows.map((window) => ({ ...window, spentMicros: entry.costMicros ?? 0, releasedMicros: 0 }));
}
