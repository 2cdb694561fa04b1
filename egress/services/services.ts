import { ownServiceHost, OWN_SERVICES, type OwnService } from '../../contracts/harnesses.ts';
import { LIMITS } from '../../contracts/limits.ts';
import type { Pool } from '../../db/pool.ts';
import type { EgressSession } from '../../db/queries/egress-policies.ts';
import { mintSessionToken } from '../../db/queries/session-tokens.ts';
import { mintVirtualKey } from '../../db/queries/virtual-keys.ts';
import { withoutHeader } from '../credentials/fill.ts';
import type { EgressTarget, RequestHead } from '../decision.ts';
import type { ServiceAddresses } from './config.ts';

/** What a harness needs of each, and nothing else: not the rest of the API that may listen at the same address. */
const PATHS: Record<OwnService, RegExp> = {
  gateway:
    /^(?:\/v1)?\/(?:messages(?:\/count_tokens)?|chat\/completions|responses|models(?:\/[\w.:@-]+)?)$|^\/v1beta\/models(?:\/[\w.@-]+(?::(?:generateContent|streamGenerateContent|countTokens))?)?$/,
  mcp: /^\/mcp(?:\/[\w-]+)?$/,
};
/** Where clients put keys; what stands there inside a sandbox means nothing. */
const KEY_HEADERS = ['authorization', 'x-api-key', 'x-goog-api-key', 'cookie', 'proxy-authorization'];

interface Secret {
  value: string;
  renewAtMs: number;
}

/**
 * The product's own services, as harnesses inside sandboxes reach them by names. The sandbox has no key: whose it is was
 * settled by its listener, so the broker makes a key of that session, holds it in memory and puts it into each request.
 */
export class OwnServices {
  readonly #pool: Pool;
  readonly #addresses: ServiceAddresses;
  readonly #secrets = new Map<string, Promise<Secret>>();

  constructor(pool: Pool, addresses: ServiceAddresses) {
    this.#pool = pool;
    this.#addresses = addresses;
  }

  /** The service a request is for. */
  named({ host }: EgressTarget): OwnService | undefined {
    return OWN_SERVICES.find((service) => ownServiceHost(service) === host);
  }

  /** Why a session's sandbox may not have what it asks for; undefined when it may. */
  refusal(service: OwnService, session: EgressSession, head: RequestHead): string | undefined {
    const { agent } = session;
    if (agent.harness === 'native' || agent.placement !== 'sandbox' || !this.#addresses.has(service)) {
      return `${head.target.host} serves harnesses that run inside their sandbox, where the operator has set it up`;
    }
    const isPlain = !head.target.isTls && head.target.port === 80 && !head.isWebSocket;
    return isPlain && PATHS[service].test(head.path)
      ? undefined
      : `${head.target.host} has no ${head.method} ${head.path} here: it is for calls of models and tools over http`;
  }

  /** The request as it goes to the service, with the session's key. */
  async addressed(service: OwnService, session: EgressSession, head: RequestHead): Promise<RequestHead> {
    const url = this.#addresses.get(service);
    if (url === undefined) throw new Error(`no address of ${service}`);
    const { value } = await this.#secret(service, session);
    const isTls = url.protocol === 'https:';
    const via = { host: url.hostname, port: url.port === '' ? (isTls ? 443 : 80) : Number(url.port), isTls };
    const query = new URLSearchParams(head.query ?? '');
    // Google's clients may put it there.
    query.delete('key');
    const headers = KEY_HEADERS.reduce((left, name) => withoutHeader(left, name), head.headers);
    return {
      ...head,
      target: { ...head.target, via },
      path: `${url.pathname.replace(/\/$/, '')}${head.path}`,
      query: query.size === 0 ? null : query.toString(),
      headers: [...headers, ['authorization', `Bearer ${value}`]],
    };
  }

  /** The session is over, and its keys with it. */
  forget(sessionId: string): void {
    for (const service of OWN_SERVICES) this.#secrets.delete(`${service}/${sessionId}`);
  }

  async #secret(service: OwnService, session: EgressSession): Promise<Secret> {
    const name = `${service}/${session.id}`;
    const known = this.#secrets.get(name);
    if (known !== undefined && (await known).renewAtMs > Date.now()) return known;
    const made = this.#mint(service, session);
    this.#secrets.set(name, made);
    made.catch(() => this.#secrets.delete(name));
    return made;
  }

  async #mint(service: OwnService, session: EgressSession): Promise<Secret> {
    const { id, teamId, createdBy, agentId, agentVersion } = session;
    const ttlMs = LIMITS.harnessKeyTtlMs;
    const renewAtMs = Date.now() + ttlMs / 2;
    if (service === 'mcp') return { value: (await mintSessionToken(this.#pool, id, 'mcp', ttlMs)).token, renewAtMs };
    const draft = { teamId, userId: createdBy, sessionId: id, agentId, agentVersion, followsTurn: true, ttlMs };
    return { value: (await mintVirtualKey(this.#pool, draft)).key, renewAtMs };
  }
}
