import { z } from 'zod';
import { LIMITS } from './limits.ts';

export const time = z.iso.datetime().meta({ description: 'RFC 3339 time' });
export const nameField = z.string().trim().min(1).max(LIMITS.nameChars);
export const descriptionField = z.string().max(LIMITS.descriptionChars).nullable().optional();
export const titleField = z.string().max(LIMITS.titleChars).nullable().optional();

const metadataKey = z.string().min(1).max(LIMITS.metadataKeyChars);
const metadataValue = z.string().max(LIMITS.metadataValueChars);
const tooMany = { error: `at most ${LIMITS.metadataPairs} pairs` };
export const metadata = z
  .record(metadataKey, metadataValue)
  .refine((pairs) => Object.keys(pairs).length <= LIMITS.metadataPairs, tooMany);
/** A string sets a key, null removes it, absent keys stay. */
export const metadataPatch = z
  .record(metadataKey, metadataValue.nullable())
  .refine((pairs) => Object.keys(pairs).length <= 2 * LIMITS.metadataPairs, tooMany)
  .nullable()
  .optional();

/** A field the Managed Agents clients may send empty and that nothing here acts on yet: a value is refused, not ignored. */
export function notSupportedYet(isEmpty: (value: unknown) => boolean = isBlank) {
  return z
    .unknown()
    .refine(isEmpty, { error: 'is not supported yet; leave it out' })
    .optional()
    .meta({ description: 'Not supported yet: leave it out, null or empty' });
}

function isBlank(value: unknown): boolean {
  return value === undefined || value === null || (Array.isArray(value) && value.length === 0);
}

/** Words of the caller's own that usage and budgets can be grouped by; equal ones count once. */
export const labels = z
  .array(z.string().trim().min(1).max(LIMITS.labelChars))
  .max(LIMITS.labels)
  .transform((given) => [...new Set(given)])
  .meta({ description: 'Longhaul’s own: words usage and budgets can be grouped by' });
export const repo = z
  .string()
  .max(LIMITS.repoChars)
  .regex(/^[\w.-]+(\/[\w.-]+){1,5}$/, 'must be a repository like owner/name')
  .meta({ description: 'Longhaul’s own: the repository it works on', example: 'acme/shop' });

export const vaultIds = z.array(z.string().min(1).max(LIMITS.nameChars)).max(LIMITS.vaultIds);

/** Money in minor units of the currency as a decimal string: "2500" is $25.00. */
export const listCost = z.strictObject({
  amount: z.string().regex(/^[1-9]\d{0,11}$/, 'must be a positive whole number of cents, as a string'),
  currency: z.literal('USD'),
});
export const budget = z.strictObject({ type: z.literal('limit'), max_list_cost: listCost }).meta({ id: 'Budget' });

const hour = 3_600_000;
export const sessionLimits = z
  .strictObject({
    max_steps_per_turn: z.number().int().min(1).max(LIMITS.stepsPerTurn).exactOptional(),
    turn_timeout_ms: z.number().int().min(1_000).max(LIMITS.turnWallClockMs).exactOptional(),
    wall_clock_ms: z.number().int().min(1_000).max(LIMITS.sessionWallClockMs).exactOptional(),
    idle_ms: z.number().int().min(1_000).max(LIMITS.sessionWallClockMs).exactOptional(),
    approval_ttl_ms: z.number().int().min(1_000).max(LIMITS.approvalTtlMaxMs).exactOptional(),
  })
  .meta({
    id: 'SessionLimits',
    description: `Absent: the default, for example ${LIMITS.approvalTtlMs / hour} h for an approval`,
  });
