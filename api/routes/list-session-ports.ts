import { sessionPath } from '../../contracts/events.ts';
import { sessionPortList } from '../../contracts/session-ports.ts';
import { listSessionPorts } from '../../db/queries/session-ports.ts';
import { getSession } from '../../db/queries/sessions.ts';
import { endpoint } from '../endpoint.ts';
import { renderSessionPort } from '../render/session-ports.ts';

export const listPorts = endpoint({
  method: 'get',
  path: '/v1/sessions/{session_id}/ports',
  tag: 'Sessions',
  summary: 'The open ports of a session, newest first',
  params: sessionPath,
  response: sessionPortList,
  async handle({ db, principal, services }, { params }) {
    const session = await getSession(db, principal.teamId, params.session_id);
    // An ended session's links open nothing, whatever their time.
    const rows = session.status === 'terminated' ? [] : await listSessionPorts(db, session.id);
    return { data: rows.map((row) => renderSessionPort(row, services.config.portsUrl)) };
  },
});
