import { sessionPortClosed, sessionPortPath } from '../../contracts/session-ports.ts';
import { insertAudit } from '../../db/queries/audit.ts';
import { revokeSessionPort } from '../../db/queries/session-ports.ts';
import { getSession } from '../../db/queries/sessions.ts';
import { actorOf } from '../actor.ts';
import { endpoint } from '../endpoint.ts';

export const closeSessionPort = endpoint({
  method: 'delete',
  path: '/v1/sessions/{session_id}/ports/{port_id}',
  tag: 'Sessions',
  summary: 'Close a port; connections through it end within seconds',
  params: sessionPortPath,
  response: sessionPortClosed,
  async handle({ db, principal }, { params }) {
    const session = await getSession(db, principal.teamId, params.session_id);
    if (await revokeSessionPort(db, session.id, params.port_id)) {
      await insertAudit(db, {
        teamId: principal.teamId,
        actor: actorOf(principal),
        action: 'session_port.close',
        resource: params.port_id,
        sessionId: session.id,
      });
    }
    return { id: params.port_id, type: 'session_port_closed' as const };
  },
});
