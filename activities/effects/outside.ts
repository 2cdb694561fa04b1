import type { EffectRow } from '../../db/queries/effects.ts';
import type { SessionForTurn } from '../../db/queries/session-status.ts';
import type { RunEffectResult } from '../../workflows/activity-types.ts';
import type { ActivityDeps } from '../deps.ts';
import { redactContent } from '../redaction.ts';
import { finishEffect, loseEffect, outcomeOf } from './close.ts';
import { runPlatformTool } from './platform.ts';
import { start } from './start.ts';

/** True for tools that need no sandbox: those of the product itself, and those of MCP servers. */
export function isOutside({ kind }: EffectRow): boolean {
  return kind === 'platform' || kind === 'mcp';
}

/** One such effect, from `allowed` to its end. */
export async function runOutside(
  deps: ActivityDeps,
  session: SessionForTurn,
  before: EffectRow,
  signal: AbortSignal,
): Promise<RunEffectResult> {
  const { effect, resumed } = await start(deps, session, before.id, null);
  if (effect.state !== 'started') return outcomeOf(deps, session, effect);
  if (resumed && !effect.idempotent) {
    return loseEffect(deps, session, effect, 'the worker died while it ran, and nobody can be asked how it ended');
  }
  const outcome = await runPlatformTool(deps, effect);
  if (outcome.kind === 'lost') return loseEffect(deps, session, effect, outcome.reason);
  const content = await redactContent(deps, session.id, outcome.content, signal);
  return finishEffect(deps, session, effect, { ...outcome, content });
}
