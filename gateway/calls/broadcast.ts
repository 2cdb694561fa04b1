import type { ServerResponse } from 'node:http';
import type { RecordedAnswer } from '../../db/queries/model-calls.ts';
import { sendError } from '../http.ts';
import { errorFrame, type Protocol, type ProtocolError } from '../protocol.ts';

/** How one response wants the answer. */
interface Follower {
  res: ServerResponse;
  protocol: Protocol;
  requestId: string;
  headers: Record<string, string>;
}

type End = { ok: true } | { ok: false; failure: ProtocolError; wasStreamed: boolean };

/**
 * An answer kept while it is made, so that any number of responses, early or late, get all of it. What is pushed is
 * seen only after `release`: a caller that has the end can rely on it being recorded.
 */
export class Broadcast {
  readonly #chunks: Buffer[] = [];
  readonly #wakeups = new Set<() => void>();
  #sizeBytes = 0;
  #visible = 0;
  #head: { status: number; headers: Record<string, string>; isStream: boolean } | undefined;
  #end: End | undefined;

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  setHead(status: number, headers: Record<string, string>, isStream: boolean): void {
    this.#head = { status, headers, isStream };
  }

  push(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#sizeBytes += chunk.length;
  }

  /** Shows everything pushed so far. */
  release(): void {
    this.#visible = this.#chunks.length;
    this.#wake();
  }

  /** The answer is whole. */
  finish(): void {
    this.#end ??= { ok: true };
    this.release();
  }

  /** The answer failed; `wasStreamed` when its bytes hold the provider's own report of that. */
  fail(failure: ProtocolError, wasStreamed = false): void {
    this.#end ??= { ok: false, failure, wasStreamed };
    if (wasStreamed) this.#visible = this.#chunks.length;
    this.#wake();
  }

  /** The answer as it is to be recorded. */
  answer(): RecordedAnswer {
    return { status: this.#head?.status ?? 200, headers: this.#head?.headers ?? {}, body: Buffer.concat(this.#chunks) };
  }

  /** Sends what there is and what will come; ends when the answer does or the response is closed. */
  follow(follower: Follower): void {
    const { res } = follower;
    let next = 0;
    let isBlocked = false;
    const pump = (): void => {
      if (res.destroyed || res.writableEnded) return stop();
      while (!isBlocked && this.#head !== undefined && next < this.#visible) {
        const chunk = this.#chunks[next];
        if (chunk === undefined) break;
        if (!res.headersSent) res.writeHead(this.#head.status, { ...this.#head.headers, ...follower.headers });
        next += 1;
        isBlocked = !res.write(chunk);
      }
      if (this.#end === undefined || next < this.#visible) return;
      stop();
      this.#sendEnd(follower, this.#end);
    };
    const onDrain = (): void => {
      isBlocked = false;
      pump();
    };
    const stop = (): void => {
      this.#wakeups.delete(pump);
      res.removeListener('drain', onDrain);
      res.removeListener('close', stop);
    };
    this.#wakeups.add(pump);
    res.on('drain', onDrain);
    res.on('close', stop);
    pump();
  }

  #sendEnd({ res, protocol, requestId, headers }: Follower, end: End): void {
    if (end.ok) {
      if (!res.headersSent) res.writeHead(this.#head?.status ?? 200, { ...this.#head?.headers, ...headers });
      res.end();
    } else endWithFailure(res, { protocol, requestId, isStream: this.#head?.isStream === true }, end);
  }

  #wake(): void {
    for (const wakeup of this.#wakeups) wakeup();
  }
}

/** Tells the caller of a failure as well as the state of the response allows. */
export function endWithFailure(
  res: ServerResponse,
  how: { protocol: Protocol; requestId: string; isStream: boolean },
  end: { failure: ProtocolError; wasStreamed: boolean },
): void {
  if (!res.headersSent) sendError(res, how.protocol, end.failure, how.requestId);
  else if (end.wasStreamed) res.end();
  else if (how.isStream) res.end(errorFrame(how.protocol, end.failure, how.requestId));
  else res.destroy();
}
