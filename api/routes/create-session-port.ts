import { sessionPath } from '../../contracts/events.ts';
import { PORT_TOKEN_PARAMETER } from '../../contracts/port-links.ts';
import { sessionPortCreate, sessionPortCreated } from '../../contracts/session-ports.ts';
import { insertAudit } from '../../db/queries/audit.ts';
import { insertSessionPort } from '../../db/queries/session-ports.ts';
import { getSession } from '../../db/queries/sessions.ts';
import { requireOpen } from '../accept-events.ts';
import { actorOf } from '../actor.ts';
import { endpoint } from '../endpoint.ts';
import { renderSessionPort } from '../render/session-ports.ts';

export const createSessionPort = endpoint({
  method: 'post',
  path: '/v1/sessions/{session_id}/ports',
  tag: 'Sessions',
  summary: 'Open a port of the sandbox to whoever holds the link',
  description:
    'The answer is the only place where the link stands. It ends by itself, when closed, and with the session.',
  params: sessionPath,
  body: sessionPortCreate,
  response: sessionPortCreated,
  secrets: ['url'],
  async handle({ db, principal, services }, { params, body }) {
    const session = await getSession(db, principal.teamId, params.session_id, { lock: true });
    requireOpen(session);
    const { row, token } = await insertSessionPort(db, {
      sessionId: session.id,
      teamId: principal.teamId,
      port: body.port,
      createdBy: principal.userId,
      ttlSeconds: body.ttl_seconds,
    });
    await insertAudit(db, {
      teamId: principal.teamId,
      actor: actorOf(principal),
      action: 'session_port.open',
      resource: row.id,
      sessionId: session.id,
      details: { port: row.port, expires_at: row.expiresAt.toISOString() },
    });
    const resource = renderSessionPort(row, services.config.portsUrl);
    return { ...resource, url: `${resource.origin}/?${PORT_TOKEN_PARAMETER}=${token}` };
  },
});
