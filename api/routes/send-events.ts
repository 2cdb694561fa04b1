import { eventsSend, eventsSent, sessionPath } from '../../contracts/events.ts';
import { getSession } from '../../db/queries/sessions.ts';
import { acceptEvents } from '../accept-events.ts';
import { actorOf } from '../actor.ts';
import { endpoint } from '../endpoint.ts';
import { requireUnlimitedCalls } from '../key-changes.ts';
import { traceInputs } from '../trace-inputs.ts';
import { renderEvent } from '../render/events.ts';

export const sendEvents = endpoint({
  method: 'post',
  path: '/v1/sessions/{session_id}/events',
  tag: 'Events',
  summary: 'Send events to a session',
  description: 'All or none are accepted. Accepted is durable: each reaches exactly one end, also after a crash.',
  params: sessionPath,
  body: eventsSend,
  response: eventsSent,
  async handle(context, { params, body }) {
    const { db, principal, services, afterCommit } = context;
    requireUnlimitedCalls(principal);
    const session = await getSession(db, principal.teamId, params.session_id, { lock: true });
    const rows = await acceptEvents(db, session, body.events, actorOf(principal));
    afterCommit(() => services.delivery.deliver(session.id));
    traceInputs(context, session.id, rows);
    return { data: rows.map(renderEvent) };
  },
});
