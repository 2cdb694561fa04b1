import type { IncomingHttpHeaders } from 'node:http';
import { Pool, type Dispatcher } from 'undici';
import { assertNever } from '../../contracts/states.ts';
import type { UpstreamConfig } from '../config.ts';
import type { AnswerSink, Provider, ProviderRequest, RunningCall, StoredRequest } from './port.ts';

interface HttpProviderOptions {
  name: 'anthropic' | 'openai';
  upstream: UpstreamConfig;
}

/** What a caller may learn from the provider's answer: nothing about our account, no cookies. */
const ANSWER_HEADERS = new Set([
  'cache-control',
  'content-length',
  'content-type',
  'openai-processing-ms',
  'openai-version',
  'request-id',
  'retry-after',
  'retry-after-ms',
  'x-request-id',
  'x-should-retry',
]);
const RATE_LIMIT_HEADERS = ['anthropic-ratelimit-', 'x-ratelimit-'];
const CONNECT_TIMEOUT_MS = 10_000;
const CONNECTIONS = 512;

interface Sent {
  headers: Record<string, string>;
  search: string;
  body?: Buffer;
}

const responsePath = ({ responseId }: StoredRequest): string => `/responses/${encodeURIComponent(responseId)}`;
/** What is done with a stored answer, in OpenAI's API. */
const STORED: Record<StoredRequest['action'], (request: StoredRequest) => ['GET' | 'POST' | 'DELETE', string]> = {
  retrieve: (request) => ['GET', responsePath(request)],
  input_items: (request) => ['GET', `${responsePath(request)}/input_items`],
  cancel: (request) => ['POST', `${responsePath(request)}/cancel`],
  delete: (request) => ['DELETE', responsePath(request)],
};

/** Makes a provider that passes bytes through to a vendor's HTTP API; the vendor key lives here only. */
export function createHttpProvider(options: HttpProviderOptions): Provider {
  const base = new URL(options.upstream.baseUrl);
  const pathPrefix = base.pathname.replace(/\/+$/, '');
  const pool = new Pool(base.origin, {
    connections: CONNECTIONS,
    pipelining: 1,
    // The caller of the provider keeps all clocks: it knows whether an answer streams.
    headersTimeout: 0,
    bodyTimeout: 0,
    connect: { timeout: CONNECT_TIMEOUT_MS },
  });
  const keyHeaders = keyHeadersOf(options);
  const send = (method: 'GET' | 'POST' | 'DELETE', path: string, what: Sent, sink: AnswerSink): RunningCall => {
    const call = new HttpCall(sink);
    // A compressed answer could not be tapped for its usage.
    const headers = { ...what.headers, 'accept-encoding': 'identity', ...keyHeaders };
    const { body } = what;
    const typed = body === undefined ? headers : { ...headers, 'content-type': 'application/json' };
    pool.dispatch({ method, path: pathPrefix + path + what.search, headers: typed, body: body ?? null }, call);
    return call;
  };
  return {
    name: options.name,
    start: (request, sink) => send('POST', pathOf(options.name, request), request, sink),
    ...(options.name === 'openai' && {
      stored: (request: StoredRequest, sink: AnswerSink) => send(...STORED[request.action](request), request, sink),
    }),
    close: () => pool.destroy(),
  };
}

function keyHeadersOf({ name, upstream }: HttpProviderOptions): Record<string, string> {
  if (upstream.apiKey === undefined) return {};
  return name === 'anthropic' ? { 'x-api-key': upstream.apiKey } : { authorization: `Bearer ${upstream.apiKey}` };
}

/** Anthropic base URLs come without `/v1`, OpenAI ones with it: both as the vendors' SDKs want them. */
function pathOf(name: HttpProviderOptions['name'], request: ProviderRequest): string {
  const prefix = name === 'anthropic' ? '/v1' : '';
  switch (request.protocol) {
    case 'messages':
      return `${prefix}/messages${request.operation === 'count_tokens' ? '/count_tokens' : ''}`;
    case 'chat':
      return `${prefix}/chat/completions`;
    case 'responses':
      return `${prefix}/responses`;
    default:
      return assertNever(request.protocol);
  }
}

class HttpCall implements RunningCall, Dispatcher.DispatchHandler {
  readonly #sink: AnswerSink;
  #controller: Dispatcher.DispatchController | undefined;
  #aborted = false;

  constructor(sink: AnswerSink) {
    this.#sink = sink;
  }

  abort(): void {
    this.#aborted = true;
    this.#controller?.abort(new Error('the gateway ended the call'));
  }

  resume(): void {
    if (this.#controller?.paused === true) this.#controller.resume();
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    if (this.#aborted) controller.abort(new Error('the gateway ended the call'));
  }

  onResponseStart(_controller: Dispatcher.DispatchController, status: number, headers: IncomingHttpHeaders): void {
    if (this.#aborted || status < 200) return;
    this.#sink.onHead(status, answerHeaders(headers));
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (!this.#aborted && !this.#sink.onData(chunk)) controller.pause();
  }

  onResponseEnd(): void {
    if (!this.#aborted) this.#sink.onEnd();
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    if (!this.#aborted) this.#sink.onFailure(error, true);
  }
}

function answerHeaders(headers: IncomingHttpHeaders): Record<string, string> {
  const kept: Record<string, string> = {};
  for (const name in headers) {
    const value = headers[name];
    if (typeof value !== 'string') continue;
    if (ANSWER_HEADERS.has(name) || RATE_LIMIT_HEADERS.some((prefix) => name.startsWith(prefix))) kept[name] = value;
  }
  // A stream that breaks off ends with a frame of ours: it has no length that could be told before.
  if (/^text\/event-stream/i.test(kept['content-type'] ?? '')) delete kept['content-length'];
  return kept;
}
