import type { WindowChange } from '../../db/queries/budget-slices.ts';

/** One change for each window: a statement may meet each row once only. */
export function sumChanges(changes: readonly WindowChange[]): WindowChange[] {
  const sums = new Map<string, WindowChange>();
  for (const change of changes) {
    const key = `${change.budgetId}\n${change.windowKey}`;
    const sum = sums.get(key);
    if (sum === undefined) sums.set(key, { ...change });
    else {
      sum.spentMicros += change.spentMicros;
      sum.releasedMicros += change.releasedMicros;
    }
  }
  return [...sums.values()];
}
