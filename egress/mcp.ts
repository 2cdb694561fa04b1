import { canonicalHost } from '../contracts/hosts.ts';
import type { SessionCredential } from '../contracts/credentials.ts';
import { LonghaulError } from '../contracts/error-codes.ts';
import { LIMITS } from '../contracts/limits.ts';
import type { Pool } from '../db/pool.ts';
import { insertAudit } from '../db/queries/audit.ts';
import { type Outbound, type OutboundAnswer, OutboundError } from '../vault/outbound.ts';
import { prepareCredentials } from '../vault/prepare.ts';
import type { McpAnswer, McpMessage } from './client.ts';
import type { Policies } from './policy/policies.ts';
import type { SessionState } from './policy/session-state.ts';

interface Deps {
  pool: Pool;
  policies: Pick<Policies, 'use' | 'reload'>;
  outbound: Outbound;
}

/** What of a request may be chosen by who asks; the authorization never is. */
const HEADERS = new Set(['accept', 'content-type', 'mcp-session-id', 'mcp-protocol-version', 'mcp-method', 'mcp-name']);

/**
 * Sends one message of a session to a server of its agent, with the credential its vaults hold for that server. The network
 * policy of the session holds as for its sandbox; values never leave this process but to that server, nor do they come back.
 */
export async function sendToMcpServer(deps: Deps, sessionId: string, message: McpMessage): Promise<McpAnswer> {
  return deps.policies.use(sessionId, async (state) => {
    if (state.isOver) throw new LonghaulError('session_terminated', 'the session has ended');
    const server = (state.session?.agent.mcp_servers ?? []).find(({ name }) => name === message.server);
    if (server === undefined) throw new LonghaulError('not_found', `the agent has no MCP server ${message.server}`);
    const url = new URL(server.url);
    const refusal = refusalOf(state, url, message.method);
    const credential = refusal === null ? await credentialFor(deps, state, server.url) : undefined;
    await record(deps.pool, state, { message, url, refusal, credential });
    if (refusal !== null) return { kind: 'refused', reason: refusal };
    const token = credential === undefined ? null : await state.resolve(credential);
    const answer = await ask(deps.outbound, url.href, message, token);
    if (answer.kind !== 'answered') return answer;
    if (answer.status === 401 && credential !== undefined) state.refused([credential]);
    // The kind of content, too, for it is quoted to the model when it is of no use.
    const [body = '', contentType = ''] = [answer.body, answer.contentType].map(
      (text) => state.matcher.redact(text).text,
    );
    return { ...answer, body, contentType };
  });
}

/** Why the session may not reach the server. A question cannot wait here: it is answered from the sandbox, or the rule is changed. */
function refusalOf(state: SessionState, url: URL, method: string): string | null {
  const host = canonicalHost(url.hostname);
  if (host === undefined) return `${url.hostname} is no host name`;
  const port = url.port === '' ? (url.protocol === 'http:' ? 80 : 443) : Number(url.port);
  state.requests += 1;
  if (state.requests > state.policy.maxRequests) return 'the session has made all the requests it may';
  const decision = state.policy.decide({ host, port, method, path: url.pathname });
  if (decision.action === 'allow') return null;
  const why = decision.action === 'ambiguous' ? 'a path with two meanings' : decision.rule;
  return `${host}:${port} may not be reached (${why}); set networking.allow_mcp_servers of the environment, or the rule`;
}

/** Of two for one server the first counts, as for the sandbox. A session that never had a sandbox is given its credentials now. */
async function credentialFor(
  { pool, policies }: Deps,
  state: SessionState,
  url: string,
): Promise<SessionCredential | undefined> {
  const find = (): SessionCredential | undefined =>
    state.live.find(({ kind, name }) => (kind === 'static_bearer' || kind === 'mcp_oauth') && name === url);
  const known = find();
  if (known !== undefined) return known;
  const { minted } = await prepareCredentials(pool, state.ownerId);
  if (minted > 0) await policies.reload(state);
  return find();
}

async function ask(outbound: Outbound, url: string, message: McpMessage, token: string | null): Promise<McpAnswer> {
  const headers = Object.fromEntries(
    Object.entries(message.headers)
      .map(([name, value]) => [name.toLowerCase(), value])
      .filter(([name]) => HEADERS.has(name ?? '')),
  ) as Record<string, string>;
  if (token !== null) headers['authorization'] = `Bearer ${token}`;
  const { method, body, timeoutMs } = message;
  try {
    const sent = { method, headers, timeoutMs, maxBytes: LIMITS.mcpMessageBytes, ...(body === null ? {} : { body }) };
    return answered(await outbound.send(url, sent));
  } catch (error) {
    if (!(error instanceof OutboundError)) throw error;
    return { kind: error.isSent ? 'lost' : 'unsent', reason: error.message };
  }
}

function answered(answer: OutboundAnswer): McpAnswer {
  if (answer.isTruncated) return { kind: 'lost', reason: `its answer has more than ${LIMITS.mcpMessageBytes} bytes` };
  const { status, contentType, text, mcpSessionId } = answer;
  return { kind: 'answered', status, contentType, mcpSessionId, body: text };
}

async function record(
  pool: Pool,
  state: SessionState,
  asked: { message: McpMessage; url: URL; refusal: string | null; credential: SessionCredential | undefined },
): Promise<void> {
  const { message, url, refusal, credential } = asked;
  await insertAudit(pool, {
    teamId: state.teamId,
    actor: 'egress',
    action: 'mcp.request',
    resource: message.server,
    sessionId: state.ownerId,
    decision: refusal === null ? 'allow' : 'deny',
    details: {
      method: message.method,
      host: url.host,
      ...(refusal === null ? {} : { reason: refusal }),
      ...(credential === undefined ? {} : { credential_id: credential.credentialId, version: credential.version }),
    },
  });
}
