import { agentCache } from '../../contracts/agent-cache.ts';
import { agentGetQuery, agentPath } from '../../contracts/agents.ts';
import { getAgent } from '../../db/queries/agents.ts';
import { listCacheCounts } from '../../db/queries/cache-counts.ts';
import { digestsOf, listPrefixes } from '../../db/queries/prompt-prefixes.ts';
import { endpoint } from '../endpoint.ts';

export const getAgentCache = endpoint({
  method: 'get',
  path: '/v1/agents/{agent_id}/cache',
  tag: 'Agents',
  summary: 'What is known of the caches of an agent version: its prompt prefix, and hits and misses by layer',
  description: 'Of the newest version, or of the given one. Counts arrive about a second after the calls.',
  params: agentPath,
  query: agentGetQuery,
  response: agentCache,
  async handle({ db, principal }, { params, query }) {
    const { id, version } = await getAgent(db, principal.teamId, params.agent_id, query.version);
    const prefixes = await listPrefixes(db, id, version);
    const counts = await listCacheCounts(db, id, version);
    return {
      agent_id: id,
      version,
      prompt_fingerprint: prefixes[0]?.fingerprint ?? null,
      prompt_prefix_changes: Math.max(0, prefixes.length - 1),
      prompt_prefixes: prefixes.map((row) => ({
        fingerprint: row.fingerprint,
        parts: digestsOf(row),
        size_bytes: row.sizeBytes,
        first_seen_at: row.firstSeenAt.toISOString(),
        changed: row.changed,
      })),
      layers: counts.map(({ layer, hits, misses }) => ({
        layer,
        hits,
        misses,
        hit_rate: hits + misses === 0 ? null : hits / (hits + misses),
      })),
    };
  },
});
