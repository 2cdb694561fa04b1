import { setTimeout as delay } from 'node:timers/promises';
import { withTransaction } from '../../db/pool.ts';
import { listStarted } from '../../db/queries/effects.ts';
import { endInputs } from '../../db/queries/inputs.ts';
import { listRunningCalls } from '../../db/queries/model-calls.ts';
import { getSandbox } from '../../db/queries/sandboxes.ts';
import { loadSessionForTurn } from '../../db/queries/session-status.ts';
import type { EndTurnArgs } from '../../workflows/activity-types.ts';
import { asFailure } from '../attempt.ts';
import type { ActivityDeps } from '../deps.ts';
import { closeHarness } from '../harness/close.ts';
import { execIdsOf } from '../effects/write-once.ts';
import { cancelModelCall } from '../model/gateway-client.ts';
import type { SessionKeys } from '../model/session-keys.ts';
import { recordTurnEnd } from '../../db/queries/turn-end.ts';

/** Well inside the activity's own limit. */
const STOP_BUDGET_MS = 4_000;

/** The finalizer of a turn that did not end by itself: stops what still runs, then writes the one terminal state. */
export async function endTurn(deps: ActivityDeps, keys: SessionKeys, args: EndTurnArgs): Promise<void> {
  await asFailure(async () => {
    const stopping = Promise.allSettled([
      stopModelCalls(deps, keys, args.sessionId),
      stopCommands(deps, args.sessionId, args.turn),
      stopHarness(deps, args.sessionId),
    ]);
    // What hangs must not keep the turn from its end: it has deadlines of its own.
    await Promise.race([stopping, delay(STOP_BUDGET_MS, undefined, { ref: false })]);
    await recordTurnEnd(deps.pool, args);
  });
}

/** A worker that died over a model call could not end its spending. */
async function stopModelCalls(deps: ActivityDeps, keys: SessionKeys, sessionId: string): Promise<void> {
  const running = await listRunningCalls(deps.pool, sessionId);
  if (running.length === 0) return;
  const key = await keys.keyOf(await loadSessionForTurn(deps.pool, sessionId));
  for (const idempotencyKey of running) {
    try {
      await cancelModelCall({ gatewayUrl: deps.gatewayUrl, key, idempotencyKey });
    } catch (error) {
      // The turn must end all the same; a call nobody asks for again ends by itself.
      deps.logger.warn({ sessionId, idempotencyKey, err: error }, 'model call could not be stopped');
    }
  }
}

/** A worker that died over a turn could not cancel it in the harness, which may run on by itself. */
async function stopHarness(deps: ActivityDeps, sessionId: string): Promise<void> {
  await closeHarness(deps, await loadSessionForTurn(deps.pool, sessionId), false);
}

async function stopCommands(deps: ActivityDeps, sessionId: string, turn: number): Promise<void> {
  for (const effect of await listStarted(deps.pool, sessionId, turn)) {
    const sandbox = await getSandbox(deps.pool, effect.sandboxId);
    if (sandbox === undefined || sandbox.ref === null || sandbox.state === 'destroyed') continue;
    const provider = deps.sandboxProvider(sandbox.provider);
    try {
      for (const execId of execIdsOf(effect.tool, `${effect.id}.${effect.generation}`)) {
        await provider.execKill(sandbox.ref, execId, AbortSignal.timeout(5_000));
      }
    } catch (error) {
      // The turn must end all the same; its command dies with its own deadline or with the sandbox.
      deps.logger.warn({ sessionId, effectId: effect.id, err: error }, 'command could not be stopped');
    }
  }
}

/** Inputs that found nothing to act on. */
export async function closeInputs(
  deps: ActivityDeps,
  args: { sessionId: string; eventIds: string[]; reason: string },
): Promise<void> {
  await asFailure(() =>
    withTransaction(deps.pool, (tx) =>
      endInputs(tx, { sessionId: args.sessionId, eventIds: args.eventIds }, 'completed', args.reason),
    ),
  );
}
