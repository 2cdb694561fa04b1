import { sessionPath } from '../../contracts/events.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { sessionTrace, traceQuery } from '../../contracts/traces.ts';
import { listOtherCalls, readTracePage } from '../../db/queries/session-traces.ts';
import { getSession } from '../../db/queries/sessions.ts';
import { NO_USAGE, usageOfSessions } from '../../db/queries/usage.ts';
import { sessionSpan } from '../../telemetry/trace-ids.ts';
import { endpoint } from '../endpoint.ts';
import { isoOrNull } from '../render/times.ts';
import { renderOtherCalls, renderTurns } from '../render/traces.ts';

export const getSessionTrace = endpoint({
  method: 'get',
  path: '/v1/sessions/{session_id}/trace',
  tag: 'Sessions',
  summary: 'The call tree of a session: turns, model calls, tool calls, approvals',
  description: 'From the record: whole also without tracing, and after deaths. Ids are those of exported spans.',
  params: sessionPath,
  query: traceQuery,
  response: sessionTrace,
  async handle({ db, principal }, { params, query }) {
    const row = await getSession(db, principal.teamId, params.session_id);
    const isFirst = query.page === undefined;
    const page = await readTracePage(db, row.id, { limit: query.limit ?? LIMITS.traceSteps, cursor: query.page });
    const others = isFirst ? await listOtherCalls(db, row.id, LIMITS.traceOtherCalls + 1) : [];
    const spent = (await usageOfSessions(db, [row.id])).get(row.id) ?? NO_USAGE;
    const { traceId, spanId } = sessionSpan(row.id);
    return {
      type: 'session_trace' as const,
      session_id: row.id,
      trace_id: traceId,
      span_id: spanId,
      agent: { id: row.agentId, version: row.agentVersion, name: row.agent.name ?? null },
      status: row.status,
      created_at: row.createdAt.toISOString(),
      ended_at: isoOrNull(row.terminatedAt),
      calls: spent.calls,
      cost_micros: spent.costMicros,
      turns: renderTurns(row.id, page),
      other_calls: renderOtherCalls(row.id, others.slice(0, LIMITS.traceOtherCalls)),
      other_calls_truncated: others.length > LIMITS.traceOtherCalls,
      next_page: page.nextPage,
    };
  },
});
