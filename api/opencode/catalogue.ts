import { LonghaulError } from '../../contracts/error-codes.ts';
import { AGENT_HARNESSES } from '../../contracts/harnesses.ts';
import { LIMITS } from '../../contracts/limits.ts';
import type { Queryable } from '../../db/pool.ts';
import type { AgentRow } from '../../db/queries/agents.ts';
import { getAgent, listAgents } from '../../db/queries/agents.ts';
import { listEnvironments } from '../../db/queries/environments.ts';
import { listModelRoutes } from '../../db/queries/model-routes.ts';
import { DIRECTORY, PROVIDER_ID } from './wire.ts';

/** Its clients have one page only. */
const page = { limit: LIMITS.pageSizeMax, order: 'asc' as const };

/** The agents of a team under names its clients can tell apart: an id where a name is taken. */
export async function namedAgents(db: Queryable, teamId: string): Promise<Map<string, AgentRow>> {
  const { data } = await listAgents(db, { teamId, includeArchived: false }, page);
  const named = new Map<string, AgentRow>();
  for (const row of data) named.set(named.has(row.definition.name) ? row.id : row.definition.name, row);
  return named;
}

/** Names of other servers of this API. */
const ALIASES: Readonly<Record<string, string>> = { cc: 'claude-code' };

/** The agent a session is made with: the named one, the first of the named harness, the configured one, or the default. */
export async function chooseAgent(
  db: Queryable,
  teamId: string,
  asked: { agent?: string | undefined; harness?: string | undefined; configured: string },
): Promise<AgentRow> {
  const named = await namedAgents(db, teamId);
  const rows = [...named.values()];
  const ofHarness = (name: string): AgentRow | undefined =>
    rows.find((row) => row.definition.harness === (ALIASES[name] ?? name));
  const { agent, harness } = asked;
  if (agent !== undefined) {
    const found = named.get(agent) ?? rows.find((row) => row.id === agent) ?? ofHarness(agent);
    if (found !== undefined) return found;
    throw new LonghaulError('not_found', `there is no agent ${agent}; GET /agent lists them`, { field: 'agent' });
  }
  if (harness !== undefined) {
    const found = ofHarness(harness);
    if (found !== undefined) return found;
    const known = (AGENT_HARNESSES as readonly string[]).includes(ALIASES[harness] ?? harness);
    const message = known ? `no agent has the harness ${harness}` : `${harness} is no harness`;
    throw new LonghaulError('not_found', message, { field: 'harness' });
  }
  if (asked.configured !== '') return getAgent(db, teamId, asked.configured);
  const found = ofHarness('opencode') ?? ofHarness('native') ?? rows[0];
  if (found === undefined) {
    throw new LonghaulError('not_found', 'this team has no agent yet: make one with POST /v1/agents', {
      field: 'agent',
    });
  }
  return found;
}

/** The environment of new sessions: the named one, the configured one, or the team's first. */
export async function chooseEnvironment(
  db: Queryable,
  teamId: string,
  asked: { id: string | undefined; configured: string },
): Promise<string> {
  if (asked.id !== undefined) return asked.id;
  if (asked.configured !== '') return asked.configured;
  const { data } = await listEnvironments(db, { teamId, includeArchived: false }, { ...page, limit: 1 });
  const [first] = data;
  if (first !== undefined) return first.id;
  throw new LonghaulError('not_found', 'this team has no environment yet: make one with POST /v1/environments', {
    field: 'environment',
  });
}

export function renderAgent(name: string, { definition }: AgentRow): object {
  return {
    name,
    description: definition.description ?? `${definition.name} (${definition.harness})`,
    mode: 'primary',
    native: false,
    permission: [],
    options: {},
    model: { providerID: PROVIDER_ID, modelID: definition.model.id },
  };
}

/** The models its clients may choose from: those of agents and routes; others may be named all the same. */
export async function modelIds(db: Queryable, teamId: string): Promise<string[]> {
  const agents = await namedAgents(db, teamId);
  const routes = await listModelRoutes(db, teamId, page);
  const ids = new Set([...agents.values()].map((row) => row.definition.model.id));
  for (const route of routes.data) ids.add(route.name);
  return [...ids];
}

/** The gateway as a provider. Prices stand in the ledger, so none are told here. */
export function renderProvider(models: readonly string[]): object {
  return {
    id: PROVIDER_ID,
    name: 'Longhaul',
    source: 'config',
    env: [],
    options: {},
    models: Object.fromEntries(models.map((id) => [id, renderModel(id)])),
  };
}

function renderModel(id: string): object {
  const kinds = { text: true, audio: false, image: false, video: false, pdf: false };
  return {
    id,
    providerID: PROVIDER_ID,
    api: { id, url: '', npm: '@ai-sdk/openai-compatible' },
    name: id,
    capabilities: {
      temperature: false,
      reasoning: false,
      attachment: false,
      toolcall: true,
      input: kinds,
      output: kinds,
      interleaved: false,
    },
    cost: { input: 0, output: 0, cache: { read: 0, write: 0 } },
    limit: { context: 200_000, output: 32_000 },
    status: 'active',
    options: {},
    headers: {},
    release_date: '2026-01-01',
    variants: {},
  };
}

export const PROJECT = {
  id: 'global',
  worktree: DIRECTORY,
  time: { created: 0, updated: 0 },
  sandboxes: [],
};

export const PATHS = {
  home: DIRECTORY,
  state: DIRECTORY,
  config: DIRECTORY,
  worktree: DIRECTORY,
  directory: DIRECTORY,
};
