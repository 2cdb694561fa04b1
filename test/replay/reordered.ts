import type { SessionArgs } from '../../workflows/messages.ts';
import { records } from '../../workflows/session/proxies.ts';
import { session as today } from '../../workflows/session/session.ts';

/** The session workflow with one activity moved to the front: what a careless change would do to running sessions. */
export async function session(args: SessionArgs): Promise<void> {
  await records.closeInputs({ sessionId: args.sessionId, eventIds: [], reason: 'reordered' });
  await today(args);
}
