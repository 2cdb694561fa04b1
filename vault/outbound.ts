import dns from 'node:dns';
import net from 'node:net';
import { Agent, request, type Dispatcher } from 'undici';
import { LIMITS } from '../contracts/limits.ts';

/** Which addresses a request may go to. */
export interface Reach {
  /** True for an address of the public internet. */
  isPublicAddress: (address: string) => boolean;
  /** `host` or `host:port` that may be elsewhere, and speak plain HTTP. */
  privateHosts: readonly string[];
}

export interface OutboundAnswer {
  status: number;
  contentType: string;
  mcpSessionId: string | null;
  text: string;
  isTruncated: boolean;
}

/** Nothing came back. `isSent` false: it is certain that the other side did not get the request. */
export class OutboundError extends Error {
  readonly isSent: boolean;

  constructor(message: string, isSent: boolean) {
    super(message);
    this.name = 'OutboundError';
    this.isSent = isSent;
  }
}

interface OutboundRequest {
  method: 'GET' | 'POST' | 'PUT' | 'DELETE';
  headers: Record<string, string>;
  body?: string;
  timeoutMs: number;
  /** Of the answer. */
  maxBytes?: number;
}

type LookupCallback = (error: Error | null, addresses: dns.LookupAddress[]) => void;

/**
 * Requests of the broker itself, which stand outside of every sandbox. Where a team chose the address, only the public
 * internet and what the operator named are reached; redirects are not followed, answers are cut.
 */
export class Outbound {
  readonly #open = new Agent({ connect: { timeout: LIMITS.oauthCallMs } });
  readonly #guarded: Agent;
  readonly #reach: Reach | null;

  /** `reach` null: the operator chose the address. */
  constructor(reach: Reach | null) {
    this.#reach = reach;
    this.#guarded = new Agent({
      connect: {
        timeout: LIMITS.oauthCallMs,
        // What is looked up here is what is dialled: a name cannot mean another address a moment later.
        lookup: (host, options, callback) => {
          dns.lookup(host, { ...options, all: true }, (error, found) => {
            const addresses = error === null ? found.filter(({ address }) => this.#isAllowed(address)) : [];
            const refused = error ?? (addresses.length === 0 ? refusal(host) : null);
            (callback as unknown as LookupCallback)(refused, addresses);
          });
        },
      },
    });
  }

  async send(url: string, sent: OutboundRequest): Promise<OutboundAnswer> {
    const dispatcher = this.#dispatcherFor(new URL(url));
    const signal = AbortSignal.timeout(sent.timeoutMs);
    let answer: Dispatcher.ResponseData;
    try {
      answer = await request(url, {
        dispatcher,
        method: sent.method,
        headers: sent.headers,
        body: sent.body ?? null,
        signal,
      });
      const maxBytes = sent.maxBytes ?? LIMITS.vaultAnswerBytes;
      return {
        status: answer.statusCode,
        contentType: headerOf(answer, 'content-type') ?? '',
        mcpSessionId: headerOf(answer, 'mcp-session-id') ?? null,
        ...(await bodyOf(answer.body, maxBytes)),
      };
    } catch (error) {
      throw new OutboundError(reasonOf(error), !isBeforeSending(error));
    }
  }

  async close(): Promise<void> {
    await Promise.all([this.#open.destroy(), this.#guarded.destroy()]);
  }

  #dispatcherFor(url: URL): Agent {
    const reach = this.#reach;
    if (reach === null || reach.privateHosts.includes(url.host) || reach.privateHosts.includes(url.hostname)) {
      return this.#open;
    }
    if (url.protocol !== 'https:') throw new OutboundError(`${url.host} has to speak https`, false);
    const literal = url.hostname.replace(/^\[|\]$/g, '');
    if (net.isIP(literal) !== 0 && !this.#isAllowed(literal)) throw new OutboundError(refusal(url.host).message, false);
    return this.#guarded;
  }

  #isAllowed(address: string): boolean {
    return this.#reach?.isPublicAddress(address) !== false;
  }
}

function refusal(host: string): Error & { code: string } {
  const message = `${host} is not on the public internet, and the operator has not opened it`;
  return Object.assign(new Error(message), { code: 'ENOTFOUND' });
}

function headerOf(answer: Dispatcher.ResponseData, name: string): string | undefined {
  const value = answer.headers[name];
  return Array.isArray(value) ? value[0] : value;
}

async function bodyOf(body: AsyncIterable<Buffer>, maxBytes: number): Promise<{ text: string; isTruncated: boolean }> {
  const pieces: Buffer[] = [];
  let sizeBytes = 0;
  for await (const piece of body) {
    pieces.push(piece);
    sizeBytes += piece.length;
    if (sizeBytes > maxBytes) break;
  }
  const isTruncated = sizeBytes > maxBytes;
  return { text: Buffer.concat(pieces).subarray(0, maxBytes).toString('utf8'), isTruncated };
}

const BEFORE_SENDING = new Set([
  'ENOTFOUND',
  'EAI_AGAIN',
  'ECONNREFUSED',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'UND_ERR_CONNECT_TIMEOUT',
]);

function isBeforeSending(error: unknown): boolean {
  return error instanceof OutboundError ? !error.isSent : BEFORE_SENDING.has(codeOf(error));
}

/** A code or a name, never a text that could repeat what was sent. */
function reasonOf(error: unknown): string {
  if (error instanceof Error && /is not on the public internet/.test(error.message)) return error.message;
  const code = codeOf(error);
  return code === '' ? 'no answer' : `no answer (${code})`;
}

function codeOf(error: unknown): string {
  if (typeof error !== 'object' || error === null) return '';
  const { code, name, errors } = error as { code?: unknown; name?: unknown; errors?: unknown };
  if (typeof code === 'string') return code;
  if (Array.isArray(errors)) return codeOf(errors[0]);
  return typeof name === 'string' ? name : '';
}
