import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { hasHands } from '../../contracts/agent-tools.ts';
import type { HarnessName } from '../../contracts/harnesses.ts';
import { ownServiceHost } from '../../contracts/harnesses.ts';
import { mcpServersInUse, OWN_MCP_SERVER } from '../../contracts/mcp.ts';
import type { SessionForTurn } from '../../db/queries/session-status.ts';
import type { ActivityDeps } from '../deps.ts';
import { noteOf } from '../model/step.ts';
import { skillsNote, skillsOf } from '../skills/note.ts';
import type { Lease } from '../sandbox/lease.ts';
import type { HarnessSpec, McpEndpoint, SandboxPlace } from './port.ts';
import type { SessionSecrets } from './session-secrets.ts';
import { sessionSecrets } from './session-secrets.ts';

/** The session's own folder on this machine: nobody but this user may look into it. */
export function sessionFolder(deps: ActivityDeps, sessionId: string): string {
  return path.join(deps.harness.sessionsDir, sessionId);
}

/** Below the workspace: it stays as long as the session's files do. */
const STATE_IN_SANDBOX = '/workspace/.longhaul/harness';
/** Stands for a key inside a sandbox, which has none: the broker puts the session's own in. */
const NO_KEY = 'longhaul';

/** What the harness of a session is opened with; the same for all its turns. */
export async function harnessSpec(
  deps: ActivityDeps,
  session: SessionForTurn,
  lease: Lease | undefined,
): Promise<HarnessSpec> {
  const note = hasHands(session.agent) ? await noteOf(deps, session) : '';
  // A harness that reads skills by itself tells its model of them.
  const { skills: readsThem } = await deps.harness.driver(session.agent.harness as HarnessName).capabilities();
  const catalogue = readsThem ? '' : await skillsNote(deps.pool, session.agent);
  const system = [session.agent.system ?? '', note, catalogue].filter((part) => part !== '').join('\n\n');
  const given = { systemPrompt: system === '' ? null : system, skills: await skillsOf(deps.pool, session) };
  if (lease !== undefined) return { ...inSandbox(session, lease), ...given };
  const spec = inline(deps, session, await sessionSecrets(deps, session, sessionFolder(deps, session.id)));
  for (const folder of [spec.cwd, spec.stateDir]) await mkdir(folder, { recursive: true, mode: 0o700 });
  return { ...spec, ...given };
}

/** Enough to find what runs for a session and end it; it opens nothing. */
export function closingSpec(
  deps: ActivityDeps,
  session: SessionForTurn,
  sandbox: SandboxPlace | undefined,
): HarnessSpec {
  if (session.agent.placement === 'sandbox') return inSandbox(session, sandbox);
  return inline(deps, session, { key: '', mcpToken: '', hookToken: '' });
}

/** Beside the worker: our tools are its only hands. */
function inline(deps: ActivityDeps, session: SessionForTurn, secrets: SessionSecrets): HarnessSpec {
  const folder = sessionFolder(deps, session.id);
  const { apiUrl } = deps.harness;
  return {
    ...common(session),
    placement: 'inline',
    cwd: path.join(folder, 'work'),
    stateDir: path.join(folder, 'state'),
    model: { baseUrl: deps.gatewayUrl, key: secrets.key },
    mcpServers: mcpEndpoints(apiUrl, session, bearer(secrets.mcpToken)),
    hook: { url: `${apiUrl}/v1/harness/hooks/pre-tool-use`, headers: bearer(secrets.hookToken) },
    hands: 'platform',
  };
}

/** In the session's sandbox, with hands of its own and names that only the broker knows. */
function inSandbox(session: SessionForTurn, sandbox: SandboxPlace | undefined): HarnessSpec {
  return {
    ...common(session),
    placement: 'sandbox',
    cwd: '/workspace',
    stateDir: STATE_IN_SANDBOX,
    model: { baseUrl: `http://${ownServiceHost('gateway')}`, key: NO_KEY },
    mcpServers: mcpEndpoints(`http://${ownServiceHost('mcp')}`, session, {}),
    hands: 'own',
    ...(sandbox === undefined ? {} : { sandbox: { provider: sandbox.provider, ref: sandbox.ref, env: sandbox.env } }),
  };
}

function common({
  id,
  agent,
}: SessionForTurn): Pick<HarnessSpec, 'sessionId' | 'systemPrompt' | 'skills' | 'env' | 'agent'> {
  const { harness_agent: name } = agent;
  return { sessionId: id, systemPrompt: null, skills: [], env: {}, ...(name === undefined ? {} : { agent: name }) };
}

/** Ours first; then the agent's own servers, which are reached through us, too. */
function mcpEndpoints(apiUrl: string, { agent }: SessionForTurn, headers: Record<string, string>): McpEndpoint[] {
  const own = { name: OWN_MCP_SERVER, url: `${apiUrl}/mcp`, headers };
  return [own, ...mcpServersInUse(agent).map((name) => ({ name, url: `${own.url}/${name}`, headers }))];
}

function bearer(token: string): Record<string, string> {
  return { authorization: `Bearer ${token}` };
}
