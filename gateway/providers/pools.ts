import { Pool } from 'undici';

const CONNECT_TIMEOUT_MS = 10_000;
const CONNECTIONS = 512;

/** Connections to upstreams: one pool an origin, shared by all deployments there, made at the first call. */
export class UpstreamPools {
  readonly #pools = new Map<string, Pool>();

  to(origin: string): Pool {
    const known = this.#pools.get(origin);
    if (known !== undefined) return known;
    const pool = new Pool(origin, {
      connections: CONNECTIONS,
      pipelining: 1,
      // The caller of the provider keeps all clocks: it knows whether an answer streams.
      headersTimeout: 0,
      bodyTimeout: 0,
      connect: { timeout: CONNECT_TIMEOUT_MS },
    });
    this.#pools.set(origin, pool);
    return pool;
  }

  async close(): Promise<void> {
    await Promise.all(Array.from(this.#pools.values(), (pool) => pool.destroy()));
    this.#pools.clear();
  }
}
