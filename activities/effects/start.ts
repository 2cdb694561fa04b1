import { ApplicationFailure } from '@temporalio/activity';
import type { Queryable } from '../../db/pool.ts';
import { withTransaction } from '../../db/pool.ts';
import { insertAudit } from '../../db/queries/audit.ts';
import type { EffectRow } from '../../db/queries/effects.ts';
import { adoptEffect, getEffect, moveEffect } from '../../db/queries/effects.ts';
import { consumeGrant } from '../../db/queries/harness-grants.ts';
import { isSandboxRunning } from '../../db/queries/sandboxes.ts';
import type { SessionForTurn } from '../../db/queries/session-status.ts';
import { lockSession, setRunning } from '../../db/queries/session-status.ts';
import type { ActivityDeps } from '../deps.ts';
import type { Lease } from '../sandbox/lease.ts';
import { forgetLease } from '../sandbox/lease.ts';

/**
 * The ledger says `started` before anything starts, and the approval is used up in the same transaction. Any state but
 * `started` in the answer means the effect must not run. `lease` null: it runs outside of the sandbox.
 */
export async function start(
  deps: ActivityDeps,
  session: SessionForTurn,
  effectId: string,
  lease: Lease | null,
): Promise<{ effect: EffectRow; resumed: boolean }> {
  return withTransaction(deps.pool, async (tx) => {
    const status = await lockSession(tx, session.id);
    if (status === 'terminated')
      throw ApplicationFailure.nonRetryable('the session is terminated', 'session_terminated');
    const effect = await getEffect(tx, effectId);
    if (effect.state === 'started') {
      // What may be repeated goes on in the sandbox there is now.
      if (lease === null || !effect.idempotent || effect.sandboxId === lease.id) return { effect, resumed: true };
      await adoptEffect(tx, effectId, lease.id);
      return { effect: { ...effect, sandboxId: lease.id }, resumed: true };
    }
    if (effect.state !== 'allowed') return { effect, resumed: false };
    if (lease !== null) await requireAwake(deps, tx, session.id, lease);
    const change = await consumeGrant(tx, effect);
    if (change === undefined) {
      throw ApplicationFailure.nonRetryable('no approval of these arguments is there to use', 'internal');
    }
    const place = lease === null ? {} : { sandboxId: lease.id };
    await moveEffect(tx, effectId, 'allowed', 'started', { ...change, ...place }, effect.generation);
    await setRunning(tx, session.id);
    await insertAudit(tx, {
      teamId: session.teamId,
      actor: 'workflow',
      action: 'effect.start',
      resource: effectId,
      sessionId: session.id,
      digest: change.digest ?? effect.digest,
      details: { tool: effect.tool, generation: effect.generation, sandbox_id: lease?.id ?? null },
    });
    return { effect: await getEffect(tx, effectId), resumed: false };
  });
}

/** Somebody may have put it to sleep since the lease was taken: nothing begins then, and the next attempt wakes it. */
async function requireAwake(deps: ActivityDeps, tx: Queryable, sessionId: string, lease: Lease): Promise<void> {
  if (await isSandboxRunning(tx, lease.id)) return;
  forgetLease(deps, sessionId);
  throw ApplicationFailure.retryable('the sandbox sleeps', 'sandbox_lost');
}
