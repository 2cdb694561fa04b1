import { ApplicationFailure, Context } from '@temporalio/activity';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { assertNever } from '../../contracts/states.ts';
import type { EffectRow } from '../../db/queries/effects.ts';
import { getEffect, planEffect } from '../../db/queries/effects.ts';
import { loadSessionForTurn } from '../../db/queries/session-status.ts';
import type { RunEffectArgs, RunEffectResult } from '../../workflows/activity-types.ts';
import { cancelledByWorkflow, withHeartbeat } from '../attempt.ts';
import type { ActivityDeps } from '../deps.ts';
import { giveUpLate } from '../outage.ts';
import { inputProblem, isBuiltinTool, TOOL_INPUTS } from '../../contracts/tool-inputs.ts';
import { redactContent } from '../redaction.ts';
import { forgetLease, leaseSandbox } from '../sandbox/lease.ts';
import { whileRenewed } from '../sandbox/renew.ts';
import { bash } from './bash.ts';
import { failUnstarted, finishEffect, loseEffect, outcomeOf } from './close.ts';
import { edit, read, write } from './files.ts';
import type { ToolContext, ToolOutcome } from './outcome.ts';
import { done } from './outcome.ts';
import { isOutside, runOutside } from './outside.ts';
import { glob, grep } from './search.ts';
import { start } from './start.ts';
import { execIdsOf } from './write-once.ts';

/** One effect, from `allowed` to its end; an attempt after a crash re-attaches to what the first one started. */
export async function runEffect(deps: ActivityDeps, args: RunEffectArgs): Promise<RunEffectResult> {
  return withHeartbeat(async (signal) => {
    try {
      return await startOrAttach(deps, args, signal);
    } catch (error) {
      throw signal.aborted
        ? error
        : await giveUpLate(deps, { sessionId: args.sessionId, place: `effect/${args.effectId}` }, error);
    }
  });
}

async function startOrAttach(deps: ActivityDeps, args: RunEffectArgs, signal: AbortSignal): Promise<RunEffectResult> {
  const session = await loadSessionForTurn(deps.pool, args.sessionId);
  const before = await getEffect(deps.pool, args.effectId);
  if (before.state !== 'allowed' && before.state !== 'started') return outcomeOf(deps, session, before);
  if (isOutside(before)) return runOutside(deps, session, before, { timeoutMs: args.timeoutMs, signal });
  const leased = await leaseSandbox(deps, session, signal);
  if (leased.kind === 'unprepared') return { outcome: 'unprepared' };
  if (leased.kind === 'failed') {
    // What had started in the sandbox before may have had its effect.
    const mayHaveRun = before.state === 'started' && !before.idempotent;
    return (mayHaveRun ? loseEffect : failUnstarted)(deps, session, before, leased.message);
  }
  const { lease } = leased;
  const started = await start(deps, session, args.effectId, lease);
  if (started.effect.state !== 'started') return outcomeOf(deps, session, started.effect);
  if (started.resumed && started.effect.sandboxId !== lease.id && !started.effect.idempotent) {
    return loseEffect(deps, session, started.effect, 'its sandbox is gone');
  }
  const context: ToolContext = {
    lease,
    effectId: args.effectId,
    execId: `${args.effectId}.${started.effect.generation}`,
    timeoutMs: timeLimit(started.effect, args.timeoutMs),
    resumed: started.resumed,
    signal,
  };
  const outcome = await attempt(deps, started.effect, context);
  if (outcome.kind === 'lost') return loseEffect(deps, session, started.effect, outcome.reason);
  // Before it is stored anywhere. When the broker is away the next attempt finds the same outcome in the sandbox.
  const content = await redactContent(deps, session.id, outcome.content, signal);
  return finishEffect(deps, session, started.effect, { ...outcome, content });
}

/** A person may have edited the time limit; it can only become shorter than what the workflow planned for. */
function timeLimit(effect: EffectRow, plannedMs: number): number {
  const asked = effect.tool === 'bash' ? effect.input['timeout_ms'] : undefined;
  return typeof asked === 'number' ? Math.min(asked, plannedMs) : plannedMs;
}

/** Runs the tool. Cancellation by the workflow kills the command; a worker going down leaves it running. */
async function attempt(deps: ActivityDeps, effect: EffectRow, context: ToolContext): Promise<ToolOutcome> {
  try {
    return await whileRenewed(deps, context.lease, () => dispatch(deps, effect, context));
  } catch (error) {
    if (context.signal.aborted) {
      if (!cancelledByWorkflow(Context.current())) throw error;
      const { provider, ref } = context.lease;
      for (const execId of execIdsOf(effect.tool, context.execId)) {
        await provider.execKill(ref, execId, AbortSignal.timeout(10_000));
      }
      return done('Stopped: the turn was interrupted.', true);
    }
    if (!(error instanceof LonghaulError)) throw error;
    if (error.code === 'sandbox_lost' || error.code === 'sandbox_not_found') {
      // The next attempt wakes the sandbox; its exec journal says whether this command had started.
      forgetLease(deps, effect.sessionId);
      throw ApplicationFailure.retryable(error.message, error.code);
    }
    if (error.retryable) throw error;
    return done(error.message, true);
  }
}

async function dispatch(deps: ActivityDeps, effect: EffectRow, context: ToolContext): Promise<ToolOutcome> {
  const { tool } = effect;
  if (!isBuiltinTool(tool)) return done(`no tool named ${tool}`, true);
  const problem = inputProblem(tool, effect.input);
  if (problem !== undefined) return done(problem, true);
  switch (tool) {
    case 'bash':
      return bash(context, TOOL_INPUTS.bash.parse(effect.input));
    case 'read':
      return read(context, TOOL_INPUTS.read.parse(effect.input));
    case 'write':
      return write(context, TOOL_INPUTS.write.parse(effect.input));
    case 'edit': {
      const savePlan = (plan: { oldSha256: string; newSha256: string }): Promise<void> =>
        planEffect(deps.pool, effect.id, plan);
      return edit(context, TOOL_INPUTS.edit.parse(effect.input), effect.result?.plan, savePlan);
    }
    case 'glob':
      return glob(context, TOOL_INPUTS.glob.parse(effect.input));
    case 'grep':
      return grep(context, TOOL_INPUTS.grep.parse(effect.input));
    case 'web_fetch':
      return done('web_fetch is refused: this environment has no egress rules that allow it.', true);
    default:
      return assertNever(tool);
  }
}
