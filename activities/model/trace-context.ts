import { countPauses } from '../../db/queries/turn-traces.ts';
import { formatTraceparent, turnSpan } from '../../telemetry/trace-ids.ts';
import type { StepRef } from '../../workflows/activity-types.ts';
import type { ActivityDeps } from '../deps.ts';

/** Tells the gateway which stretch of the turn a model call belongs to. */
export async function turnContext(deps: ActivityDeps, at: StepRef): Promise<string> {
  // Only an exported span is cut at the waits of its turn: without one there is nothing to look up.
  const segment = deps.tracing.isOn ? await countPauses(deps.pool, at.sessionId, at.turn) : 0;
  return formatTraceparent(turnSpan(at.sessionId, at.turn, segment));
}
