import { z } from 'zod';
import { listCost, nameField, time } from './fields.ts';
import { LIMITS } from './limits.ts';
import { boolParam, pageParams } from './paging.ts';

/** What a pool pays for. `org` is the whole installation; `root_session` is a session with all that it started. */
export const BUDGET_SCOPES = [
  'org',
  'team',
  'user',
  'agent',
  'deployment',
  'session',
  'root_session',
  'label',
  'repo',
  'key',
] as const;
export type BudgetScope = (typeof BUDGET_SCOPES)[number];

/** How long a pool's money lasts: for good, a UTC month or day, one session with all that it started, or one call. */
export const BUDGET_PERIODS = ['total', 'month', 'day', 'session', 'call'] as const;
export type BudgetPeriod = (typeof BUDGET_PERIODS)[number];

/** `threshold`: a share was spent; `soft_limit`: the soft limit was; `exhausted`: a call was refused or stopped. */
export const BUDGET_EVENT_KINDS = ['threshold', 'soft_limit', 'exhausted'] as const;
export type BudgetEventKind = (typeof BUDGET_EVENT_KINDS)[number];

const percent = z.number().int().min(1).max(100);
const thresholds = z
  .array(percent)
  .max(LIMITS.budgetThresholds)
  .meta({
    description: 'Percent of the hard limit (else of the soft one) that raise an event',
    example: [50, 80, 100],
  });
const degradeTo = z
  .strictObject({
    model: z.string().trim().min(1).max(LIMITS.nameChars),
    at_percent: percent.optional().meta({ description: 'Share of the limit from which on; default 80' }),
  })
  .meta({ description: 'A cheaper model (or alias) that is called instead once a share is spent' });

export const budgetCreate = z
  .strictObject({
    name: nameField,
    scope: z.strictObject({
      type: z.enum(BUDGET_SCOPES),
      id: z
        .string()
        .min(1)
        .max(LIMITS.nameChars)
        .optional()
        .meta({ description: 'Of the scope; left out for `org`, and for `team`, which is your own' }),
    }),
    period: z.enum(BUDGET_PERIODS),
    hard_limit: listCost.nullish().meta({ description: 'No call may spend more than this' }),
    soft_limit: listCost.nullish().meta({ description: 'Only raises an event' }),
    thresholds: thresholds.optional(),
    degrade_to: degradeTo.nullish(),
  })
  .meta({ id: 'BudgetCreate' });
export type BudgetCreate = z.infer<typeof budgetCreate>;

export const budgetUpdate = z
  .strictObject({
    name: nameField.optional(),
    hard_limit: listCost.nullish(),
    soft_limit: listCost.nullish(),
    thresholds: thresholds.optional(),
    degrade_to: degradeTo.nullish(),
  })
  .meta({ id: 'BudgetUpdate' });
export type BudgetUpdate = z.infer<typeof budgetUpdate>;

const micros = z.number().int().meta({ description: 'Micro-dollars' });
const money = listCost.extend({ amount: z.string() });
export const budgetPool = z
  .object({
    id: z.string(),
    type: z.literal('budget'),
    name: z.string(),
    scope: z.object({ type: z.enum(BUDGET_SCOPES), id: z.string() }),
    period: z.enum(BUDGET_PERIODS),
    hard_limit: money.nullable(),
    soft_limit: money.nullable(),
    thresholds: z.array(z.number().int()),
    degrade_to: z.object({ model: z.string(), at_percent: z.number().int() }).nullable(),
    managed: z.boolean().meta({ description: 'Made from the budget field of a session, and changed there' }),
    window: z
      .object({
        key: z.string().meta({ description: '`total`, or the UTC month or day' }),
        spent_micros: micros,
        reserved_micros: micros.meta({ description: 'Micro-dollars held for calls under way' }),
        remaining_micros: micros.nullable(),
      })
      .nullable()
      .meta({ description: 'The window of now; null for pools that count each session or call by itself' }),
    created_at: time,
    updated_at: time,
    archived_at: time.nullable(),
  })
  .meta({ id: 'BudgetPool' });
export type BudgetPoolResource = z.infer<typeof budgetPool>;

export const budgetEvent = z
  .object({
    id: z.string(),
    type: z.literal('budget_event'),
    budget_id: z.string(),
    kind: z.enum(BUDGET_EVENT_KINDS),
    window: z.string().meta({ description: '`total`, a UTC month or day, or a session' }),
    percent: z.number().int(),
    limit_micros: micros,
    spent_micros: micros,
    created_at: time,
  })
  .meta({ id: 'BudgetEvent' });
export type BudgetEventResource = z.infer<typeof budgetEvent>;

export const budgetPath = z.object({ budget_id: z.string() });
export const budgetListQuery = z.strictObject({
  ...pageParams,
  scope_type: z.enum(BUDGET_SCOPES).optional(),
  scope_id: z.string().min(1).max(LIMITS.nameChars).optional(),
  include_archived: boolParam.optional(),
});
export const budgetEventListQuery = z.strictObject({ ...pageParams });
