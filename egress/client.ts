import { readFileSync } from 'node:fs';
import { anyAbort } from '../contracts/abort.ts';
import { LonghaulError } from '../contracts/error-codes.ts';
import type { CredentialValidation } from '../contracts/vaults.ts';

/** Where a sandbox reaches the network. `listener`: at that address inside its own namespace. */
export type EgressAccess =
  | { type: 'listener'; address: string }
  | { type: 'proxy'; host: string; port: number; isTls: boolean; username: string; password: string };

/** As `EgressPoint` of the sandbox port. */
interface Point {
  type: 'namespace';
  pid: number;
  startTime: string;
}

/** Where the broker's control is and its secret; both from the environment of whoever asks. */
export interface EgressClientConfig {
  url: string;
  token: string;
}

/** `LONGHAUL_EGRESS_URL` with `LONGHAUL_EGRESS_TOKEN` or `LONGHAUL_EGRESS_TOKEN_FILE`; null when there is no broker. */
export function egressClientConfig(env: Record<string, string | undefined>): EgressClientConfig | null {
  const url = env['LONGHAUL_EGRESS_URL'];
  if (url === undefined || url === '') return null;
  const file = env['LONGHAUL_EGRESS_TOKEN_FILE'] ?? '';
  const token = env['LONGHAUL_EGRESS_TOKEN'] ?? (file === '' ? '' : readFileSync(file, 'utf8').trim());
  if (token === '') throw new LonghaulError('setup_required', 'LONGHAUL_EGRESS_TOKEN is not set');
  return { url: url.replace(/\/$/, ''), token };
}

/** One message for an MCP server of the session's agent. */
export interface McpMessage {
  /** Its name in the agent's definition: the address is the broker's to know. */
  server: string;
  method: 'POST' | 'DELETE';
  headers: Record<string, string>;
  body: string | null;
  timeoutMs: number;
}

export type McpAnswer =
  | { kind: 'answered'; status: number; contentType: string; mcpSessionId: string | null; body: string }
  /** The network policy of the session says no. */
  | { kind: 'refused'; reason: string }
  /** It is certain that the server did not get it. */
  | { kind: 'unsent'; reason: string }
  /** It may have got it. */
  | { kind: 'lost'; reason: string };

const CALL_MS = 15_000;
/** Two tries at a server and a renewal between them; less than a transaction of the api may wait. */
const VALIDATE_MS = 25_000;

/**
 * What worker and api ask of the broker. Every call may be repeated. A broker that is away is `sandbox_unavailable`:
 * try again; until then its sandboxes have no network.
 */
export class EgressClient {
  readonly #config: EgressClientConfig;

  constructor(config: EgressClientConfig) {
    this.#config = config;
  }

  /** Lets the sandbox out. `point` null: it is elsewhere and comes to the public listener. `sessionId` null: an E2B program made it. */
  async attach(
    sandboxId: string,
    sessionId: string | null,
    point: Point | null,
    signal?: AbortSignal,
  ): Promise<EgressAccess> {
    const body = { sessionId, point };
    const answer = await this.#call('PUT', `/sandboxes/${encodeURIComponent(sandboxId)}`, body, signal);
    return (answer as { access: EgressAccess }).access;
  }

  /** False when there was none. */
  async detach(sandboxId: string, signal?: AbortSignal): Promise<boolean> {
    const answer = await this.#call('DELETE', `/sandboxes/${encodeURIComponent(sandboxId)}`, undefined, signal);
    return (answer as { detached: boolean }).detached;
  }

  /** The session's policy or credentials changed: they hold from the next request on. */
  async refresh(sessionId: string, signal?: AbortSignal): Promise<void> {
    await this.#call('POST', `/sessions/${encodeURIComponent(sessionId)}/refresh`, {}, signal);
  }

  /** What a sandbox without a session may reach changed. */
  async refreshSandbox(sandboxId: string, signal?: AbortSignal): Promise<void> {
    await this.#call('POST', `/sandboxes/${encodeURIComponent(sandboxId)}/refresh`, {}, signal);
  }

  /** The session ended: its values are forgotten, its connections cut. */
  async revoke(sessionId: string, signal?: AbortSignal): Promise<void> {
    await this.#call('POST', `/sessions/${encodeURIComponent(sessionId)}/revoke`, {}, signal);
  }

  /** The texts without live secrets of the session. */
  async redact(
    sessionId: string,
    texts: string[],
    signal?: AbortSignal,
  ): Promise<{ texts: string[]; redactions: number }> {
    return (await this.#call('POST', '/redact', { sessionId, texts }, signal)) as {
      texts: string[];
      redactions: number;
    };
  }

  /** Tries an OAuth credential at its MCP server. */
  async validateCredential(credentialId: string): Promise<Omit<CredentialValidation, 'type'>> {
    const path = `/credentials/${encodeURIComponent(credentialId)}/validate`;
    return (await this.#call('POST', path, {}, undefined, VALIDATE_MS)) as Omit<CredentialValidation, 'type'>;
  }

  /** Sends a message to an MCP server of the session's agent, with the credential that the session has for it. */
  async mcp(sessionId: string, message: McpMessage, signal?: AbortSignal): Promise<McpAnswer> {
    const path = `/sessions/${encodeURIComponent(sessionId)}/mcp`;
    return (await this.#call('POST', path, message, signal, message.timeoutMs + CALL_MS)) as McpAnswer;
  }

  async #call(
    method: string,
    path: string,
    body: object | undefined,
    signal?: AbortSignal,
    limitMs: number = CALL_MS,
  ): Promise<unknown> {
    const limit = AbortSignal.timeout(limitMs);
    let response: Response;
    try {
      response = await fetch(`${this.#config.url}${path}`, {
        method,
        headers: { authorization: `Bearer ${this.#config.token}`, 'content-type': 'application/json' },
        body: body === undefined ? null : JSON.stringify(body),
        signal: signal === undefined ? limit : anyAbort([signal, limit]),
      });
    } catch (error) {
      signal?.throwIfAborted();
      throw new LonghaulError('sandbox_unavailable', 'the egress broker does not answer', { cause: error });
    }
    const answer = (await response.json().catch(() => null)) as { error?: { code?: string; message?: string } } | null;
    if (response.ok) return answer;
    const message = answer?.error?.message ?? `status ${response.status}`;
    const code = response.status >= 500 ? 'sandbox_unavailable' : 'sandbox_invalid';
    throw new LonghaulError(code, `the egress broker refused: ${message}`);
  }
}
