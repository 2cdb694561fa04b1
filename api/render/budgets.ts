import type { BudgetEventResource, BudgetPoolResource } from '../../contracts/budgets.ts';
import type { BudgetEventRow } from '../../db/queries/budget-events.ts';
import type { BudgetRow } from '../../db/queries/budgets.ts';
import { isoOrNull } from './times.ts';

const MICROS_PER_CENT = 10_000;

export function renderBudget(row: BudgetRow): BudgetPoolResource {
  return {
    id: row.id,
    type: 'budget',
    name: row.name,
    scope: { type: row.scopeKind, id: row.scopeId },
    period: row.period,
    hard_limit: money(row.hardLimitMicros),
    soft_limit: money(row.softLimitMicros),
    thresholds: row.thresholds,
    degrade_to:
      row.degradeTo === null || row.degradeAtPercent === null
        ? null
        : { model: row.degradeTo, at_percent: row.degradeAtPercent },
    managed: row.isManaged,
    window: windowOf(row),
    created_at: row.createdAt.toISOString(),
    updated_at: row.updatedAt.toISOString(),
    archived_at: isoOrNull(row.archivedAt),
  };
}

function windowOf(row: BudgetRow): BudgetPoolResource['window'] {
  if (row.windowKey === null) return null;
  const limit = row.hardLimitMicros;
  return {
    key: row.windowKey,
    spent_micros: row.spentMicros,
    reserved_micros: row.reservedMicros,
    remaining_micros: limit === null ? null : Math.max(0, limit - row.spentMicros - row.reservedMicros),
  };
}

function money(micros: number | null): BudgetPoolResource['hard_limit'] {
  return micros === null ? null : { amount: String(micros / MICROS_PER_CENT), currency: 'USD' };
}

export function renderBudgetEvent(row: BudgetEventRow): BudgetEventResource {
  return {
    id: row.id,
    type: 'budget_event',
    budget_id: row.budgetId,
    kind: row.kind,
    window: row.windowKey,
    percent: row.percent,
    limit_micros: row.limitMicros,
    spent_micros: row.spentMicros,
    created_at: row.createdAt.toISOString(),
  };
}
