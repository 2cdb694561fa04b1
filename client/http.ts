import type { ErrorBody } from '../contracts/error-codes.ts';
import { ApiError } from './errors.ts';

export interface ClientOptions {
  /** For example http://127.0.0.1:4680 */
  apiUrl: string;
  apiKey: string;
  timeoutMs?: number;
}

export type Query = Record<string, string | number | boolean | readonly string[] | undefined>;

interface Call {
  method: 'GET' | 'POST' | 'DELETE';
  path: string;
  query?: Query | undefined;
  body?: unknown;
  headers?: Record<string, string>;
  signal?: AbortSignal | undefined;
}

const DEFAULT_TIMEOUT_MS = 30_000;
const ATTEMPTS = 4;
const FIRST_WAIT_MS = 200;

/** One HTTP connection to the API. Every POST carries an idempotency key, so repeating one is safe. */
export class Http {
  private readonly options: ClientOptions;

  constructor(options: ClientOptions) {
    this.options = options;
  }

  get<T>(path: string, query?: Query): Promise<T> {
    return this.json<T>({ method: 'GET', path, query });
  }

  post<T>(path: string, body: unknown = {}): Promise<T> {
    return this.json<T>({ method: 'POST', path, body, headers: { 'idempotency-key': crypto.randomUUID() } });
  }

  delete<T>(path: string): Promise<T> {
    return this.json<T>({ method: 'DELETE', path });
  }

  /** The open answer of a stream. */
  async stream(path: string, query: Query, headers: Record<string, string>, signal?: AbortSignal): Promise<Response> {
    return this.send({ method: 'GET', path, query, headers, signal });
  }

  private async json<T>(call: Call): Promise<T> {
    const timeoutMs = this.options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    for (let attempt = 1; ; attempt += 1) {
      try {
        const response = await this.send({ ...call, signal: AbortSignal.timeout(timeoutMs) });
        return (await response.json()) as T;
      } catch (error) {
        if (!(error instanceof ApiError) || attempt === ATTEMPTS || !mayRetry(error)) throw error;
        await new Promise((resolve) => setTimeout(resolve, FIRST_WAIT_MS * 2 ** (attempt - 1)));
      }
    }
  }

  private async send(call: Call): Promise<Response> {
    const url = new URL(call.path, this.options.apiUrl);
    for (const [key, value] of Object.entries(call.query ?? {})) {
      if (Array.isArray(value)) for (const item of value) url.searchParams.append(`${key}[]`, String(item));
      else if (value !== undefined) url.searchParams.set(key, String(value));
    }
    // A form says its own type, with the boundary it was given.
    const isForm = call.body instanceof FormData;
    const body = call.body === undefined || call.body instanceof FormData ? call.body : JSON.stringify(call.body);
    let response: Response;
    try {
      response = await fetch(url, {
        method: call.method,
        headers: {
          authorization: `Bearer ${this.options.apiKey}`,
          ...(body === undefined || isForm ? {} : { 'content-type': 'application/json' }),
          ...call.headers,
        },
        ...(body === undefined ? {} : { body }),
        ...(call.signal === undefined ? {} : { signal: call.signal }),
      });
    } catch (error) {
      throw new ApiError(0, undefined, `no answer from ${url.origin}`, error);
    }
    if (response.ok) return response;
    throw new ApiError(response.status, await errorBody(response), `${call.method} ${call.path}: ${response.status}`);
  }
}

/** No answer, or one that says the server is away: the key makes the repeat safe. */
function mayRetry(error: ApiError): boolean {
  return error.status === 0 || error.status === 503 || error.code === 'idempotency_in_progress';
}

async function errorBody(response: Response): Promise<ErrorBody | undefined> {
  try {
    const body: unknown = await response.json();
    return typeof body === 'object' && body !== null && 'error' in body ? (body as ErrorBody) : undefined;
  } catch {
    return undefined;
  }
}
