import type { Context } from '@temporalio/activity';
import type { ActivityExecuteInput, ActivityInboundCallsInterceptor, Next } from '@temporalio/worker';
import type {
  EndTurnArgs,
  ModelStepArgs,
  ModelStepResult,
  PauseTurnArgs,
  RunEffectArgs,
} from '../../workflows/activity-types.ts';
import type { TurnTracer } from './turn-tracer.ts';

/**
 * Sees which activity has ended and lets its spans be made. It adds no header and changes no argument or result, so that workflow
 * code, bundle and histories know nothing of tracing.
 */
export function traceActivity(tracer: TurnTracer): (context: Context) => { inbound: ActivityInboundCallsInterceptor } {
  return (context) => ({
    inbound: {
      async execute(input: ActivityExecuteInput, next: Next<ActivityInboundCallsInterceptor, 'execute'>) {
        const result: unknown = await next(input);
        report(tracer, context.info.activityType, input.args[0], result);
        return result;
      },
    },
  });
}

function report(tracer: TurnTracer, activity: string, args: unknown, result: unknown): void {
  switch (activity) {
    case 'modelStep': {
      const { sessionId, turn } = args as ModelStepArgs;
      if ((result as ModelStepResult).kind === 'ended') tracer.turnEnded(sessionId, turn);
      break;
    }
    case 'endTurn': {
      const { sessionId, turn } = args as EndTurnArgs;
      tracer.turnEnded(sessionId, turn);
      break;
    }
    case 'pauseTurn':
      tracer.turnPaused(args as PauseTurnArgs);
      break;
    case 'runEffect':
      tracer.effectStopped((args as RunEffectArgs).effectId);
      break;
    default:
  }
}
