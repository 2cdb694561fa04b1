import type { KeyCaching } from '../../contracts/caching.ts';
import type { AgentDefinition } from '../../contracts/definitions.ts';
import type { Queryable } from '../pool.ts';

/** What key and agent of a caller say about caching. */
export interface CachingSource {
  key: KeyCaching | null;
  agent: Pick<AgentDefinition, 'prompt_caching' | 'response_cache'> | null;
  /** False when the session has replaced parts of the definition: its prompt is not that of the version. */
  isOfVersion: boolean;
}

/** A session's own copy of the definition counts before that of the agent version. */
export async function findCachingSource(
  db: Queryable,
  caller: { keyId: string; sessionId: string | null; agentId: string | null; agentVersion: number | null },
): Promise<CachingSource> {
  const { rows } = await db.query<{ key: KeyCaching | null; agent: CachingSource['agent']; is_of_version: boolean }>(
    `SELECT coalesce((SELECT cache FROM virtual_keys WHERE id = $1), (SELECT cache FROM api_keys WHERE id = $1)) AS key,
       coalesce(s.agent, v.definition) AS agent,
       v.definition IS NOT NULL AND (s.agent IS NULL OR s.agent = v.definition) AS is_of_version
     FROM (SELECT 1) AS one
     LEFT JOIN sessions s ON s.id = $2
     LEFT JOIN agent_versions v ON v.agent_id = $3 AND v.version = $4`,
    [caller.keyId, caller.sessionId, caller.agentId, caller.agentVersion],
  );
  const [row] = rows;
  return { key: row?.key ?? null, agent: row?.agent ?? null, isOfVersion: row?.is_of_version ?? false };
}
