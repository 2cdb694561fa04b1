import { createHash } from 'node:crypto';
import canonicalize from 'canonicalize';
import type { Pool, Queryable } from '../pool.ts';
import { withTransaction } from '../pool.ts';
import { consumeApproval, findLatestForEffect } from './approvals.ts';
import { insertAudit } from './audit.ts';
import type { EffectRow } from './effects.ts';
import { getEffect, moveEffect } from './effects.ts';
import { loadSessionForTurn, lockSession, setRunning } from './session-status.ts';

/**
 * Uses up what allowed the effect, if it needed that. Arguments that a person edited come back; undefined: nothing that
 * allows these arguments is there to use.
 */
export async function consumeGrant(
  tx: Queryable,
  effect: EffectRow,
): Promise<{ input?: Record<string, unknown>; digest?: string } | undefined> {
  if (effect.verdict !== 'ask' && effect.generation === 1) return {};
  const approval = await findLatestForEffect(tx, effect.id);
  if (approval === undefined || !(await consumeApproval(tx, approval.id))) return undefined;
  if (approval.editedInput !== null) {
    return { input: approval.editedInput, digest: digestOf(effect.tool, approval.editedInput) };
  }
  return digestOf(effect.tool, approval.shown.input) === effect.digest ? {} : undefined;
}

function digestOf(tool: string, input: Record<string, unknown>): string {
  return createHash('sha256')
    .update(canonicalize({ tool, input }) ?? '')
    .digest('hex');
}

/**
 * A tool of the harness's own is about to begin: the ledger says so first. Gives the arguments it may begin with; undefined:
 * it may not. One that was let go before and is asked for again by the same life of the harness has not begun.
 */
export async function startHarnessEffect(
  pool: Pool,
  effectId: string,
): Promise<{ input: Record<string, unknown> } | undefined> {
  return withTransaction(pool, async (tx) => {
    const { sessionId } = await getEffect(tx, effectId);
    if ((await lockSession(tx, sessionId)) === 'terminated') return undefined;
    const effect = await getEffect(tx, effectId);
    if (effect.state === 'started') return { input: effect.input };
    if (effect.state !== 'allowed') return undefined;
    const change = await consumeGrant(tx, effect);
    if (change === undefined) return undefined;
    await moveEffect(tx, effectId, 'allowed', 'started', change, effect.generation);
    await setRunning(tx, sessionId);
    const { teamId } = await loadSessionForTurn(tx, sessionId);
    await insertAudit(tx, {
      teamId,
      actor: 'harness',
      action: 'effect.start',
      resource: effectId,
      sessionId,
      digest: change.digest ?? effect.digest,
      details: { tool: effect.tool, generation: effect.generation },
    });
    return { input: change.input ?? effect.input };
  });
}
