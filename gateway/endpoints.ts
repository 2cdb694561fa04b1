import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Protocol } from './protocol.ts';

/** One request on its way through the gateway. */
export interface Exchange {
  req: IncomingMessage;
  res: ServerResponse;
  requestId: string;
  /** Query string with its question mark, or empty. */
  search: string;
  /** What the path holds in the place of `{id}`, decoded; empty where the path has none. */
  id: string;
}

export type Method = 'GET' | 'POST' | 'DELETE';

interface Endpoint {
  method: Method;
  /** Whose shape errors have. */
  protocol: Protocol;
  handler: (exchange: Exchange) => Promise<void>;
}

interface Pattern extends Endpoint {
  before: string;
  after: string;
}

/** A path is known, but not with this method. */
interface OtherMethod {
  allowed: Method;
  protocol: Protocol;
}

/** Where a request goes. */
export interface Found {
  endpoint: Endpoint | OtherMethod;
  id: string;
  search: string;
}

const MAX_ID_CHARS = 512;

/** The gateway's paths: whole ones by one look-up, those with an `{id}` after them. */
export class EndpointTable {
  readonly #whole = new Map<string, Endpoint>();
  readonly #patterns: Pattern[] = [];

  add(method: Method, path: string, protocol: Protocol, handler: Endpoint['handler']): this {
    const endpoint = { method, protocol, handler };
    const [before = '', after] = path.split('{id}', 2);
    if (after === undefined) this.#whole.set(path, endpoint);
    else this.#patterns.push({ ...endpoint, before, after });
    return this;
  }

  /** Undefined: the path is not the gateway's. */
  find(method: string, url: string): Found | undefined {
    const at = url.indexOf('?');
    const path = at === -1 ? url : url.slice(0, at);
    const search = at === -1 ? '' : url.slice(at);
    const whole = this.#whole.get(path);
    if (whole !== undefined) {
      const endpoint = whole.method === method ? whole : { allowed: whole.method, protocol: whole.protocol };
      return { endpoint, id: '', search };
    }
    for (const pattern of this.#patterns) {
      const id = pattern.method === method ? idIn(path, pattern) : undefined;
      if (id !== undefined) return { endpoint: pattern, id, search };
    }
    return undefined;
  }
}

function idIn(path: string, { before, after }: Pattern): string | undefined {
  if (!path.startsWith(before) || !path.endsWith(after)) return undefined;
  const text = path.slice(before.length, path.length - after.length);
  if (text === '' || text.length > MAX_ID_CHARS) return undefined;
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
}
