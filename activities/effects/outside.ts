import { Context } from '@temporalio/activity';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { mcpPlaceOf } from '../../contracts/mcp.ts';
import type { EffectRow } from '../../db/queries/effects.ts';
import type { SessionForTurn } from '../../db/queries/session-status.ts';
import type { RunEffectResult } from '../../workflows/activity-types.ts';
import { cancelledByWorkflow } from '../attempt.ts';
import type { ActivityDeps } from '../deps.ts';
import { callMcpTool } from '../mcp/call.ts';
import { connectMcp } from '../mcp/connect.ts';
import { redactContent, redactTexts } from '../redaction.ts';
import { failUnstarted, finishEffect, loseEffect, outcomeOf } from './close.ts';
import type { ToolOutcome } from './outcome.ts';
import { runPlatformTool } from './platform.ts';
import { start } from './start.ts';

/** True for tools that need no sandbox: those of the product itself, and those of MCP servers. */
export function isOutside({ kind }: EffectRow): boolean {
  return kind === 'platform' || kind === 'mcp';
}

const STOPPED = {
  kind: 'done' as const,
  content: [{ type: 'text' as const, text: 'Stopped: the turn was interrupted. The server may have done it.' }],
  isError: true,
};

interface Limits {
  timeoutMs: number;
  signal: AbortSignal;
}

/** One such effect, from `allowed` to its end. */
export async function runOutside(
  deps: ActivityDeps,
  session: SessionForTurn,
  before: EffectRow,
  limits: Limits,
): Promise<RunEffectResult> {
  return before.kind === 'mcp' ? runMcp(deps, session, before, limits) : runPlatform(deps, session, before, limits);
}

async function runPlatform(
  deps: ActivityDeps,
  session: SessionForTurn,
  before: EffectRow,
  { signal }: Limits,
): Promise<RunEffectResult> {
  const { effect } = await start(deps, session, before.id, null);
  if (effect.state !== 'started') return outcomeOf(deps, session, effect);
  return close(deps, session, effect, await runPlatformTool(deps, effect), signal);
}

/** The conversation is opened before the ledger says `started`: a server that is away has certainly done nothing. */
async function runMcp(
  deps: ActivityDeps,
  session: SessionForTurn,
  before: EffectRow,
  { timeoutMs, signal }: Limits,
): Promise<RunEffectResult> {
  if (before.state === 'started') {
    return loseEffect(deps, session, before, 'the worker died while the MCP server was asked; it may have done it');
  }
  const place = mcpPlaceOf(session.agent, before.tool);
  if (place === undefined) return failUnstarted(deps, session, before, `no tool named ${before.tool}`);
  const at = { sessionId: session.id, server: place.server, timeoutMs };
  const connection = await connectMcp(deps, at, signal).catch((error: unknown) => {
    if (error instanceof LonghaulError && !error.retryable) return error;
    throw error;
  });
  if (connection instanceof LonghaulError) {
    // A server's own words, which may repeat what it was sent.
    const [reason = ''] = await redactTexts(deps, session.id, [connection.message], signal);
    return failUnstarted(deps, session, before, reason);
  }
  try {
    const { effect, resumed } = await start(deps, session, before.id, null);
    if (effect.state !== 'started' || resumed) return await outcomeOf(deps, session, effect);
    const outcome = await callMcpTool(connection, place.tool, effect.input, { timeoutMs, signal });
    if (signal.aborted) {
      // A worker that goes down leaves it as it is: the next attempt finds it started, and asks.
      if (!cancelledByWorkflow(Context.current())) throw signal.reason;
      return await finishEffect(deps, session, effect, STOPPED);
    }
    return await close(deps, session, effect, outcome, signal);
  } finally {
    await connection.close();
  }
}

async function close(
  deps: ActivityDeps,
  session: SessionForTurn,
  effect: EffectRow,
  outcome: ToolOutcome,
  signal: AbortSignal,
): Promise<RunEffectResult> {
  if (outcome.kind === 'lost') {
    const [reason = ''] = await redactTexts(deps, session.id, [outcome.reason], signal);
    return loseEffect(deps, session, effect, reason);
  }
  const content = await redactContent(deps, session.id, outcome.content, signal);
  return finishEffect(deps, session, effect, { ...outcome, content });
}
