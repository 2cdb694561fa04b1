import { agentPath } from '../../contracts/agents.ts';
import { agentEstimate, estimateQuery } from '../../contracts/usage.ts';
import type { Queryable } from '../../db/pool.ts';
import { getAgent } from '../../db/queries/agents.ts';
import { usagePercentiles, type Percentiles, type SampleKind } from '../../db/queries/usage-percentiles.ts';
import type { UsageScope } from '../../db/queries/usage-report.ts';
import { endpoint } from '../endpoint.ts';
import { renderPercentiles } from '../render/usage.ts';

const LOOK_BACK_MS = 30 * 24 * 3_600_000;
/** With fewer sessions a version says little by itself. */
const ENOUGH_SESSIONS = 5;
const NO_SAMPLES: Percentiles = {
  samples: 0,
  inputTokens: null,
  outputTokens: null,
  costMicros: null,
  latencyMs: null,
  ttftMs: null,
};

export const getAgentEstimate = endpoint({
  method: 'get',
  path: '/v1/agents/{agent_id}/estimate',
  tag: 'Usage',
  summary: 'What a session, a turn and a call of an agent may use and cost, from its last 30 days',
  params: agentPath,
  query: estimateQuery,
  response: agentEstimate,
  async handle({ db, principal }, { params, query }) {
    const agent = await getAgent(db, principal.teamId, params.agent_id, query.version);
    const to = new Date();
    const from = new Date(to.getTime() - LOOK_BACK_MS);
    const all: UsageScope = { teamId: principal.teamId, from, to, filters: { agent: agent.id } };
    const one: UsageScope = { ...all, filters: { ...all.filters, agent_version: agent.version } };
    const ofVersion = await read(db, one, 'session');
    const isEnough = ofVersion.samples >= ENOUGH_SESSIONS;
    const scope = isEnough ? one : all;
    return {
      type: 'agent_estimate' as const,
      agent_id: agent.id,
      version: isEnough ? agent.version : null,
      from: from.toISOString(),
      to: to.toISOString(),
      session: renderPercentiles(isEnough ? ofVersion : await read(db, scope, 'session')),
      turn: renderPercentiles(await read(db, scope, 'turn')),
      call: renderPercentiles(await read(db, scope, 'call')),
    };
  },
});

async function read(db: Queryable, scope: UsageScope, per: SampleKind): Promise<Percentiles> {
  const [found] = await usagePercentiles(db, scope, { groupBy: [], per, limit: 1 });
  return found ?? NO_SAMPLES;
}
