import { LonghaulError } from '../contracts/error-codes.ts';
import type { Queryable } from '../db/pool.ts';
import type { ApiKeyRow, Principal } from '../db/queries/api-keys.ts';
import { insertAudit } from '../db/queries/audit.ts';
import { actorOf } from './actor.ts';

/** A key with limits that changed keys, budgets, prices or what model names stand for could rid itself of them. */
export function requireUnlimitedKey(principal: Principal): void {
  if (!principal.isLimited) return;
  throw new LonghaulError(
    'forbidden',
    'a key with limits or an expiry of its own cannot change keys, budgets, prices, model routes or policies',
  );
}

/**
 * The model calls of a session are made with the session's own key, which has none of the limits of the key that
 * started the session or sent it a message.
 */
export function requireUnlimitedCalls(principal: Principal): void {
  if (!principal.hasCallLimits) return;
  throw new LonghaulError(
    'forbidden',
    'a key with a budget or with allowed models cannot start or drive sessions: give the session a budget instead',
  );
}

/** Tells the audit log of a change to a key, with the limits it has from now on. */
export async function auditKey(tx: Queryable, principal: Principal, verb: string, row: ApiKeyRow): Promise<void> {
  await insertAudit(tx, {
    teamId: row.teamId,
    actor: actorOf(principal),
    action: `api_key.${verb}`,
    resource: row.id,
    details: {
      name: row.name,
      scopes: row.scopes,
      allowed_models: row.allowedModels,
      max_parallel: row.maxParallel,
      expires_at: row.expiresAt,
      budget_micros: row.budgetMicros,
    },
  });
}
