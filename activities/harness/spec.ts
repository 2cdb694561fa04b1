import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { hasHands } from '../../contracts/agent-tools.ts';
import { mcpServersInUse, OWN_MCP_SERVER } from '../../contracts/mcp.ts';
import type { SessionForTurn } from '../../db/queries/session-status.ts';
import type { ActivityDeps } from '../deps.ts';
import { noteOf } from '../model/step.ts';
import type { Lease } from '../sandbox/lease.ts';
import type { HarnessSpec, McpEndpoint } from './port.ts';
import type { SessionSecrets } from './session-secrets.ts';
import { sessionSecrets } from './session-secrets.ts';

/** The session's own folder on this machine: nobody but this user may look into it. */
export function sessionFolder(deps: ActivityDeps, sessionId: string): string {
  return path.join(deps.harness.sessionsDir, sessionId);
}

/** What the harness of a session is opened with; the same for all its turns. */
export async function harnessSpec(
  deps: ActivityDeps,
  session: SessionForTurn,
  lease: Lease | undefined,
): Promise<HarnessSpec> {
  const folder = sessionFolder(deps, session.id);
  const secrets = await sessionSecrets(deps, session, folder);
  const spec = specWith(deps, session, secrets);
  const note = hasHands(session.agent) ? await noteOf(deps, session) : '';
  const system = [session.agent.system ?? '', note].filter((part) => part !== '').join('\n\n');
  if (spec.placement === 'inline') await mkdir(spec.cwd, { recursive: true, mode: 0o700 });
  await mkdir(spec.stateDir, { recursive: true, mode: 0o700 });
  return {
    ...spec,
    systemPrompt: system === '' ? null : system,
    ...(lease === undefined ? {} : { sandbox: { provider: lease.provider, ref: lease.ref, env: lease.env } }),
  };
}

/** Enough to find what runs for a session and end it; it opens nothing. */
export function closingSpec(deps: ActivityDeps, session: SessionForTurn): HarnessSpec {
  return specWith(deps, session, { key: '', mcpToken: '', hookToken: '' });
}

function specWith(deps: ActivityDeps, session: SessionForTurn, secrets: SessionSecrets): HarnessSpec {
  const folder = sessionFolder(deps, session.id);
  const { placement = 'inline', harness_agent: agent } = session.agent;
  const isInline = placement === 'inline';
  const { apiUrl } = deps.harness;
  return {
    sessionId: session.id,
    placement,
    cwd: isInline ? path.join(folder, 'work') : '/workspace',
    stateDir: path.join(folder, 'state'),
    systemPrompt: null,
    model: { baseUrl: deps.gatewayUrl, key: secrets.key },
    mcpServers: mcpEndpoints(apiUrl, session, secrets),
    hook: { url: `${apiUrl}/v1/harness/hooks/pre-tool-use`, headers: bearer(secrets.hookToken) },
    hands: isInline ? 'platform' : 'own',
    skills: [],
    env: {},
    ...(agent === undefined ? {} : { agent }),
  };
}

/** Ours first; then the agent's own servers, which are reached through us, too. */
function mcpEndpoints(apiUrl: string, { agent }: SessionForTurn, { mcpToken }: SessionSecrets): McpEndpoint[] {
  const headers = bearer(mcpToken);
  const own = { name: OWN_MCP_SERVER, url: `${apiUrl}/mcp`, headers };
  return [own, ...mcpServersInUse(agent).map((name) => ({ name, url: `${own.url}/${name}`, headers }))];
}

function bearer(token: string): Record<string, string> {
  return { authorization: `Bearer ${token}` };
}
