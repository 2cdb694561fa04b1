import { LonghaulError } from '../../contracts/error-codes.ts';
import { eventStreamQuery, sessionPath } from '../../contracts/events.ts';
import { requireRow } from '../../db/pool.ts';
import { getSession } from '../../db/queries/sessions.ts';
import { rawEndpoint } from '../endpoint.ts';
import { EventStream } from '../event-stream.ts';

export const streamEvents = rawEndpoint({
  path: '/v1/sessions/{session_id}/events/stream',
  tag: 'Events',
  summary: 'Follow the log of a session as server-sent events',
  description:
    'Each frame has `event` (the type) and `id` (the seq). Last-Event-ID or `after` replays what came later, without gap or repeat; without either the stream begins now. `ping` frames keep it open.',
  params: sessionPath,
  query: eventStreamQuery,
  contentType: 'text/event-stream',
  async handle({ req, res, services, principal, params, query }) {
    const { teamId } = requireRow(principal, 'key');
    const session = await getSession(services.pool, teamId, params.session_id);
    const stream = new EventStream({
      res,
      pool: services.pool,
      log: services.logger,
      sessionId: session.id,
      after: lastEventId(req.headers['last-event-id']) ?? query.after ?? session.lastSeq,
      previews: query['event_deltas[]'] ?? [],
    });
    const remove = services.hub.add(stream);
    services.metrics.openStreams.inc();
    res.once('close', () => {
      remove();
      services.metrics.openStreams.dec();
    });
    stream.open();
    if (session.status === 'terminated' && stream.lastSent >= session.lastSeq) stream.end();
  },
});

function lastEventId(header: string | string[] | undefined): number | undefined {
  if (header === undefined || header === '') return undefined;
  const seq = Number(header);
  if (!Number.isSafeInteger(seq) || seq < 0) {
    throw new LonghaulError('invalid_request', 'must be the id of a frame', { field: 'Last-Event-ID' });
  }
  return seq;
}
