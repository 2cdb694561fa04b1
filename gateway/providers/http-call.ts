import type { IncomingHttpHeaders } from 'node:http';
import type { Dispatcher, Pool } from 'undici';
import type { AnswerSink, RunningCall, StoredRequest } from './port.ts';

/** What a provider sends, ready for the wire. */
export interface WireRequest {
  /** Default: POST. */
  method?: 'GET' | 'POST' | 'DELETE';
  path: string;
  headers: Record<string, string>;
  body?: Buffer;
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

/** One request to an upstream whose answer goes to a sink, at the sink's pace. */
export class HttpCall implements RunningCall, Dispatcher.DispatchHandler {
  readonly #sink: AnswerSink;
  #controller: Dispatcher.DispatchController | undefined;
  #aborted = false;

  constructor(pool: Pool, request: WireRequest, sink: AnswerSink) {
    this.#sink = sink;
    const { method = 'POST', path, headers, body } = request;
    // A compressed answer could not be tapped for its usage.
    const plain = { ...headers, 'accept-encoding': 'identity' };
    const typed = body === undefined ? plain : { ...plain, 'content-type': 'application/json' };
    pool.dispatch({ method, path, headers: typed, body: body ?? null }, this);
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

/** Origin and path of a base URL, for requests below it. */
export function splitBase(baseUrl: string): { origin: string; prefix: string } {
  const { origin, pathname } = new URL(baseUrl);
  return { origin, prefix: pathname.replace(/\/+$/, '') };
}

const responsePath = ({ responseId }: StoredRequest): string => `/responses/${encodeURIComponent(responseId)}`;
/** What is done with a stored answer, in OpenAI's API. */
const STORED: Record<StoredRequest['action'], (request: StoredRequest) => ['GET' | 'POST' | 'DELETE', string]> = {
  retrieve: (request) => ['GET', responsePath(request)],
  input_items: (request) => ['GET', `${responsePath(request)}/input_items`],
  cancel: (request) => ['POST', `${responsePath(request)}/cancel`],
  delete: (request) => ['DELETE', responsePath(request)],
};

/** Method and path, below an OpenAI base, of a request about a stored answer. */
export function storedRequest(request: StoredRequest): { method: 'GET' | 'POST' | 'DELETE'; path: string } {
  const [method, path] = STORED[request.action](request);
  return { method, path };
}
