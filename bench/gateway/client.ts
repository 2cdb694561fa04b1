import { Pool, type Dispatcher } from 'undici';
import { playMark, type Play } from './play.ts';

/** One way to the provider double: directly or through the gateway. */
export interface Way {
  name: 'direct' | 'gateway';
  pool: Pool;
  key: string;
}

/** When what came, in milliseconds after the request was sent. */
export interface Timing {
  firstByteMs: number;
  totalMs: number;
  /** The longest time in which nothing came, after the first byte. */
  maxGapMs: number;
  bytes: number;
}

export function openWay(name: Way['name'], origin: string, key: string): Way {
  return { name, key, pool: new Pool(origin, { connections: 256, pipelining: 1, headersTimeout: 0, bodyTimeout: 0 }) };
}

/** A Messages request of about `bytes`, ready to be sent many times. */
export function requestBody(bytes: number, play: Play = {}): Buffer {
  const request = {
    model: 'claude-opus-5',
    max_tokens: 1_000,
    metadata: { user_id: playMark(play) },
    ...(play.events === undefined ? {} : { stream: true }),
    messages: [{ role: 'user', content: '' }],
  };
  const missing = Math.max(0, bytes - JSON.stringify(request).length);
  const line = 'A line of a prompt, as "coding agents" send them: const x = 1;\n';
  request.messages = [{ role: 'user', content: line.repeat(Math.ceil(missing / line.length)).slice(0, missing) }];
  return Buffer.from(JSON.stringify(request));
}

/** Sends one request and takes the whole answer; rejects unless it is a 200. */
export function send(way: Way, body: Buffer): Promise<Timing> {
  return new Promise((resolve, reject) => {
    const startedMs = performance.now();
    let firstByteMs = -1;
    let lastMs = 0;
    let maxGapMs = 0;
    let bytes = 0;
    let status = 0;
    const handler: Dispatcher.DispatchHandler = {
      onRequestStart: () => undefined,
      onResponseStart: (_controller, statusCode) => {
        status = statusCode;
      },
      onResponseData: (_controller, chunk: Buffer) => {
        const nowMs = performance.now() - startedMs;
        if (firstByteMs < 0) firstByteMs = nowMs;
        else maxGapMs = Math.max(maxGapMs, nowMs - lastMs);
        lastMs = nowMs;
        bytes += chunk.length;
      },
      onResponseEnd: () => {
        const totalMs = performance.now() - startedMs;
        if (status === 200) resolve({ firstByteMs, totalMs, maxGapMs, bytes });
        else reject(new Error(`${way.name} answered ${status}`));
      },
      onResponseError: (_controller, error) => reject(error),
    };
    way.pool.dispatch(
      {
        method: 'POST',
        path: '/v1/messages',
        headers: { 'content-type': 'application/json', 'x-api-key': way.key, 'anthropic-version': '2023-06-01' },
        body,
      },
      handler,
    );
  });
}
