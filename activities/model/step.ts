import { ApplicationFailure, Context } from '@temporalio/activity';
import { DEFAULT_PROMPT_CACHING } from '../../contracts/caching.ts';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { stepKey } from '../../contracts/ids.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { storable } from '../../contracts/storable.ts';
import { withTransaction } from '../../db/pool.ts';
import { appendEvents, markEventsProcessed } from '../../db/queries/events.ts';
import { endAnswerInputs, endInputs, inputModel, takeInputs } from '../../db/queries/inputs.ts';
import type { SessionForTurn } from '../../db/queries/session-status.ts';
import { loadSessionForTurn, lockSession, setRescheduling, setRunning } from '../../db/queries/session-status.ts';
import { findStep, lockTurn, openTurn, turnModel } from '../../db/queries/turns.ts';
import type { ModelStepArgs, ModelStepResult, StepRef } from '../../workflows/activity-types.ts';
import { collectOutputsOf } from '../artifacts/collect.ts';
import { cancelledByWorkflow, withHeartbeat } from '../attempt.ts';
import type { ActivityDeps } from '../deps.ts';
import { inWords, noteOutage, sandboxError } from '../outage.ts';
import { closeStaleTurns, recordTurnEnd } from '../../db/queries/turn-end.ts';
import { modelStartId, placeOf, textEventIds } from './answer.ts';
import { callModel, cancelModelCall } from './gateway-client.ts';
import { asContextError } from './cut.ts';
import { LivePublisher } from './live-text.ts';
import { mcpListings } from '../mcp/listing.ts';
import { networkOf, reachOf } from '../sandbox/network.ts';
import { buildPrompt, workspaceNote } from './prompt.ts';
import { recordAnswer, recordedResult } from './record.ts';
import { recordShown } from './shown.ts';
import { turnContext } from './trace-context.ts';
import type { SessionKeys } from './session-keys.ts';
import type { ModelAnswer } from './stream.ts';

/**
 * One step: asks the model unless that happened already, and records answer, tool calls and verdicts in one
 * transaction. What it returns is read from the record, so every attempt returns the same.
 */
export async function modelStep(deps: ActivityDeps, keys: SessionKeys, args: ModelStepArgs): Promise<ModelStepResult> {
  return withHeartbeat(async (signal) => {
    const session = await loadSessionForTurn(deps.pool, args.sessionId);
    const model = await openStep(deps, session, args);
    if (model === undefined) return recordedResult(deps.pool, args);
    let answer: ModelAnswer;
    try {
      await recordShown(deps, session, signal);
      answer = await ask(deps, keys, session, args, model, signal);
    } catch (error) {
      if (signal.aborted || !(error instanceof LonghaulError)) throw error;
      return onModelError(deps, args, error);
    }
    // Before the end of the turn is told: who reads that event finds the files.
    if (!answer.content.some(({ type }) => type === 'tool_use'))
      await collectOutputsOf(deps, session, args.turn, signal);
    await recordAnswer(deps, session, args, model, { ...answer, content: storable(answer.content) });
    return recordedResult(deps.pool, args);
  });
}

/** Opens turn and step in the record. Undefined: this step (or its turn) is recorded already, nothing to ask. */
async function openStep(deps: ActivityDeps, session: SessionForTurn, args: ModelStepArgs): Promise<string | undefined> {
  return withTransaction(deps.pool, async (tx) => {
    const status = await lockSession(tx, args.sessionId);
    if (status === 'terminated')
      throw ApplicationFailure.nonRetryable('the session is terminated', 'session_terminated');
    if (args.step === 0) {
      await closeStaleTurns(tx, args.sessionId, args.turn);
      await openTurn(tx, args.sessionId, args.turn, (await inputModel(tx, args.eventIds)) ?? session.agent.model.id);
      await takeInputs(tx, args.sessionId, args.turn, args.eventIds);
      await markEventsProcessed(tx, args.eventIds);
    }
    const state = await lockTurn(tx, args.sessionId, args.turn);
    if (state !== 'running') {
      await endInputs(
        tx,
        { sessionId: args.sessionId, eventIds: args.eventIds },
        'failed',
        'its turn had ended already',
      );
    }
    if (state !== 'running' || (await findStep(tx, args.sessionId, args.turn, args.step)) !== undefined)
      return undefined;
    // Answers to custom tools of the steps before are in this prompt: they have done their work.
    if (args.step > 0) await endAnswerInputs(tx, args.sessionId);
    // While the provider is away the status stays `rescheduling` until an answer is there, not per attempt.
    const start = { id: modelStartId(args), type: 'span.model_request_start', dedupeKey: modelStartId(args) };
    if (status === 'rescheduling') await appendEvents(tx, args.sessionId, [start]);
    else await setRunning(tx, args.sessionId, [start]);
    return (await turnModel(tx, args.sessionId, args.turn)) ?? session.agent.model.id;
  });
}

/** What the model is told of its sandbox; from what does not change while the session lives. */
export async function noteOf(deps: ActivityDeps, { environment, resources }: SessionForTurn): Promise<string> {
  if (environment.type !== 'cloud') return workspaceNote(environment, 'none');
  try {
    const capabilities = await deps.sandboxProvider(environment.provider).capabilities();
    const network = networkOf(capabilities, environment, deps.egress && { proxy: null });
    return workspaceNote(environment, reachOf(network, environment), resources);
  } catch (error) {
    // A provider that is away is told when a tool needs it; the model may have something to say without.
    if (!(sandboxError(error) instanceof LonghaulError)) throw error;
    return workspaceNote(environment, 'none', resources);
  }
}

async function ask(
  deps: ActivityDeps,
  keys: SessionKeys,
  session: SessionForTurn,
  at: StepRef,
  model: string,
  signal: AbortSignal,
): Promise<ModelAnswer> {
  const listings = await mcpListings(deps, session, { isTurnStart: at.step === 0 }, signal);
  const [prompt, key, traceparent] = await Promise.all([
    buildPrompt(deps.pool, session.id, session.agent, await noteOf(deps, session), listings),
    keys.keyOf(session),
    turnContext(deps, at),
  ]);
  const live = new LivePublisher(deps.pool, session.id, textEventIds(at));
  const call = {
    gatewayUrl: deps.gatewayUrl,
    key,
    idempotencyKey: stepKey(at.sessionId, at.turn, at.step),
    model,
    prompt,
    caching: session.agent.prompt_caching ?? DEFAULT_PROMPT_CACHING,
    live,
    traceparent,
    signal,
  };
  try {
    return await callModel(call);
  } catch (error) {
    // An interrupt ends the spending; a worker that goes down leaves the call to the gateway, which finishes it.
    if (signal.aborted && cancelledByWorkflow(Context.current())) await cancelModelCall(call);
    if (error instanceof LonghaulError && error.code === 'invalid_api_key') keys.forget(session.id);
    throw error;
  } finally {
    await live.close();
  }
}

/** Provider trouble: told once per step while it lasts; final refusals end the turn with a reason. */
async function onModelError(deps: ActivityDeps, args: ModelStepArgs, given: LonghaulError): Promise<ModelStepResult> {
  const error = asContextError(given);
  const retryable = error.retryable || error.code === 'invalid_api_key';
  const awayMs = retryable ? await noteOutage(deps.pool, args.sessionId, `step/${args.turn}/${args.step}`) : 0;
  const passing = retryable && awayMs < (args.modelOutageMs ?? LIMITS.modelOutageMs);
  deps.logger.warn(
    { sessionId: args.sessionId, turn: args.turn, step: args.step, code: error.code },
    'model call failed',
  );
  if (error.code === 'budget_exceeded') {
    return endTurn(deps, args, 'budget_reached', error.message);
  }
  await withTransaction(deps.pool, async (tx) => {
    await lockSession(tx, args.sessionId);
    if (passing) await setRescheduling(tx, args.sessionId);
    await appendEvents(tx, args.sessionId, [
      {
        type: 'session.error',
        dedupeKey: `model-error/${placeOf(args)}/${passing ? error.code : 'final'}`,
        payload: {
          error: { ...clientError(error), retry_status: { type: passing ? 'retrying' : 'terminal' } },
        },
      },
    ]);
  });
  if (passing) {
    throw ApplicationFailure.create({
      message: error.code,
      type: error.code,
      ...(error.retryAfterMs === undefined ? {} : { nextRetryDelay: error.retryAfterMs }),
    });
  }
  if (error.code === 'conversation_too_long') return endTurn(deps, args, 'context_full', error.message);
  const after = retryable ? ` (tried for ${inWords(awayMs)})` : '';
  return endTurn(deps, args, 'retries_exhausted', `${error.code}: ${error.message}${after}`);
}

async function endTurn(
  deps: ActivityDeps,
  args: ModelStepArgs,
  stopReason: 'budget_reached' | 'retries_exhausted' | 'context_full',
  reason: string,
): Promise<ModelStepResult> {
  const state = stopReason === 'budget_reached' ? 'completed' : 'failed';
  await recordTurnEnd(deps.pool, { ...args, state, stopReason, reason });
  return { kind: 'ended', stopReason };
}

function clientError(error: LonghaulError): { type: string; message: string; code: string } {
  const message = error.message.slice(0, 2_000);
  const { code } = error;
  if (code === 'provider_rate_limited' || code === 'too_many_parallel_calls') {
    return { type: 'model_rate_limited_error', message, code };
  }
  if (code === 'provider_unavailable' || code === 'provider_timeout') {
    return { type: 'model_overloaded_error', message, code };
  }
  return { type: 'model_request_failed_error', message, code };
}
