import type { BudgetCreate, BudgetUpdate } from '../contracts/budgets.ts';
import { LonghaulError } from '../contracts/error-codes.ts';
import { OPERATOR_TEAM_ID } from '../contracts/key-scopes.ts';
import { assertNever } from '../contracts/states.ts';
import { ORG_SCOPE_ID, type BudgetFields, type BudgetRow } from '../db/queries/budgets.ts';

const MICROS_PER_CENT = 10_000;
const DEFAULT_THRESHOLDS = [50, 80, 100];
const DEFAULT_DEGRADE_AT_PERCENT = 80;

type Money = BudgetCreate['hard_limit'];
type DegradeTo = BudgetCreate['degrade_to'];

/** What a new pool pays for. A team makes pools for itself and its own, the operator's for the whole installation, too. */
export function scopeIdOf(scope: BudgetCreate['scope'], teamId: string): string {
  switch (scope.type) {
    case 'org':
      if (scope.id !== undefined && scope.id !== ORG_SCOPE_ID) throw invalid('scope.id', 'leave it out for `org`');
      if (teamId !== OPERATOR_TEAM_ID) {
        throw new LonghaulError('forbidden', 'a budget of the whole installation is its operator’s', {
          field: 'scope',
        });
      }
      return ORG_SCOPE_ID;
    case 'team':
      if (scope.id !== undefined && scope.id !== teamId) throw invalid('scope.id', 'must be your own team');
      return teamId;
    case 'user':
    case 'agent':
    case 'deployment':
    case 'session':
    case 'root_session':
    case 'label':
    case 'repo':
    case 'key':
      if (scope.id === undefined) throw invalid('scope.id', `names the ${scope.type}`);
      return scope.id;
    default:
      return assertNever(scope.type);
  }
}

export function newBudgetFields(body: BudgetCreate): BudgetFields {
  const fields = {
    name: body.name,
    hardLimitMicros: microsOf(body.hard_limit),
    softLimitMicros: microsOf(body.soft_limit),
    thresholds: sorted(body.thresholds ?? DEFAULT_THRESHOLDS),
    ...degradeOf(body.degrade_to),
  };
  requireLimits(fields, body.period);
  return fields;
}

/** Absent fields stay, null removes. */
export function changedBudgetFields(before: BudgetRow, body: BudgetUpdate): BudgetFields {
  const degrade =
    body.degrade_to === undefined
      ? { degradeTo: before.degradeTo, degradeAtPercent: before.degradeAtPercent }
      : degradeOf(body.degrade_to);
  const fields = {
    name: body.name ?? before.name,
    hardLimitMicros: body.hard_limit === undefined ? before.hardLimitMicros : microsOf(body.hard_limit),
    softLimitMicros: body.soft_limit === undefined ? before.softLimitMicros : microsOf(body.soft_limit),
    thresholds: sorted(body.thresholds ?? before.thresholds),
    ...degrade,
  };
  requireLimits(fields, before.period);
  return fields;
}

function requireLimits(fields: BudgetFields, period: BudgetRow['period']): void {
  if (fields.hardLimitMicros === null && fields.softLimitMicros === null) {
    throw invalid('hard_limit', 'a budget needs a hard limit, a soft limit or both');
  }
  if (period !== 'call') return;
  if (fields.hardLimitMicros === null || fields.softLimitMicros !== null) {
    throw invalid('soft_limit', 'a budget of each call has a hard limit only');
  }
  if (fields.degradeTo !== null) throw invalid('degrade_to', 'a budget of each call has no share to spend');
}

function microsOf(money: Money): number | null {
  return money === null || money === undefined ? null : Number(money.amount) * MICROS_PER_CENT;
}

function degradeOf(to: DegradeTo): Pick<BudgetFields, 'degradeTo' | 'degradeAtPercent'> {
  if (to === null || to === undefined) return { degradeTo: null, degradeAtPercent: null };
  return { degradeTo: to.model, degradeAtPercent: to.at_percent ?? DEFAULT_DEGRADE_AT_PERCENT };
}

function sorted(thresholds: number[]): number[] {
  return [...new Set(thresholds)].sort((a, b) => a - b);
}

function invalid(field: string, message: string): LonghaulError {
  return new LonghaulError('invalid_request', message, { field });
}
