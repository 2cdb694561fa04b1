import { withHeartbeat } from '../attempt.ts';
import type { ActivityDeps } from '../deps.ts';
import { giveUpLate } from '../outage.ts';
import type { Prepared } from './prepare.ts';
import { prepareSandbox } from './prepare.ts';

/** The activity around `prepareSandbox`: tried again while the provider is away, but not for ever. */
export function prepareOrGiveUp(deps: ActivityDeps, args: { sessionId: string }): Promise<Prepared> {
  return withHeartbeat(async (signal) => {
    try {
      return await prepareSandbox(deps, args.sessionId, signal);
    } catch (error) {
      throw signal.aborted ? error : await giveUpLate(deps, { sessionId: args.sessionId, place: 'sandbox' }, error);
    }
  });
}
