import { EventSourceParserStream } from 'eventsource-parser/stream';
import type { SessionEvent } from '../contracts/events.ts';
import { ApiError } from './errors.ts';
import type { Http } from './http.ts';

/** Live preview of an event that follows in full. */
export type LiveFrame =
  | { type: 'event_start'; event: { id: string; type: string } }
  | {
      type: 'event_delta';
      event_id: string;
      delta: { type: 'content_delta'; index: number; content: { type: 'text'; text: string } };
    };

export interface FollowOptions {
  /** Replay what came after this seq; default: from now. */
  after?: number;
  /** Also yield live previews of messages and thinking. */
  live?: boolean;
  signal?: AbortSignal;
  /** Give up when the API stays away longer; default: 2 minutes. */
  maxAwayMs?: number;
}

const FIRST_WAIT_MS = 200;
const LONGEST_WAIT_MS = 5_000;
const MAX_AWAY_MS = 120_000;

/**
 * Follows a session's log over lost connections and restarts: each event once, in order. Ends when the session has
 * ended or `signal` aborts.
 */
export async function* followEvents(
  http: Http,
  sessionId: string,
  options: FollowOptions = {},
): AsyncGenerator<SessionEvent | LiveFrame> {
  const path = `/v1/sessions/${encodeURIComponent(sessionId)}/events/stream`;
  const deltas = options.live === true ? ['agent.message', 'agent.thinking'] : [];
  let last = options.after;
  let awaySinceMs: number | undefined;
  let waitMs = FIRST_WAIT_MS;
  while (!isAborted(options)) {
    try {
      const response = await http.stream(
        path,
        { event_deltas: deltas, after: last },
        last === undefined ? {} : { 'last-event-id': String(last) },
        options.signal,
      );
      awaySinceMs = undefined;
      waitMs = FIRST_WAIT_MS;
      for await (const { event, id, data } of frames(response)) {
        const seq = Number(id);
        if (Number.isSafeInteger(seq)) last = seq;
        if (event === 'ping' || event === undefined) continue;
        yield JSON.parse(data) as SessionEvent | LiveFrame;
        if (event === 'session.status_terminated' || event === 'session.deleted') return;
      }
    } catch (error) {
      if (isAborted(options)) return;
      if (error instanceof ApiError && error.status >= 400 && error.status < 500) throw error;
      awaySinceMs ??= Date.now();
      if (Date.now() - awaySinceMs > (options.maxAwayMs ?? MAX_AWAY_MS)) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, waitMs));
    waitMs = Math.min(2 * waitMs, LONGEST_WAIT_MS);
  }
}

function isAborted({ signal }: FollowOptions): boolean {
  return signal?.aborted === true;
}

async function* frames(response: Response) {
  if (response.body === null) return;
  yield* response.body.pipeThrough(new TextDecoderStream()).pipeThrough(new EventSourceParserStream());
}
