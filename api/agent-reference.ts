import type { AgentDefinition } from '../contracts/definitions.ts';
import { LonghaulError } from '../contracts/error-codes.ts';
import type { AgentParam } from '../contracts/sessions.ts';
import type { Queryable } from '../db/pool.ts';
import type { AgentRow } from '../db/queries/agents.ts';
import { getAgent } from '../db/queries/agents.ts';
import { resolveModel, resolveTools } from './definitions.ts';

/** A live agent and the version a request names; without one, the newest. */
export async function requireAgent(
  db: Queryable,
  teamId: string,
  reference: { id: string; version?: number | undefined },
): Promise<AgentRow> {
  const row = await getAgent(db, teamId, reference.id, reference.version);
  if (row.archivedAt !== null) throw new LonghaulError('archived', `agent ${row.id} is archived`, { field: 'agent' });
  return row;
}

/** The definition a session gets: that of the version, with the session's own overrides. */
export async function resolveAgent(
  db: Queryable,
  teamId: string,
  param: AgentParam,
): Promise<{ id: string; version: number; definition: AgentDefinition }> {
  const reference = typeof param === 'string' ? { id: param } : param;
  const { id, version, definition } = await requireAgent(db, teamId, reference);
  if (typeof param === 'string' || param.type === 'agent') return { id, version, definition };
  return {
    id,
    version,
    definition: {
      ...definition,
      ...(param.model === undefined ? {} : { model: resolveModel(param.model) }),
      ...(param.system === undefined ? {} : { system: param.system }),
      ...(param.tools === undefined ? {} : { tools: resolveTools(param.tools) }),
    },
  };
}
