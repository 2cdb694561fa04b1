import { randomBytes } from 'node:crypto';
import type { AnswerSink, RunningCall, StoredRequest } from './port.ts';
import type { Reply } from './scripted-reply.ts';
import { responsesBody, responsesFrames } from './scripted-wire-responses.ts';

type Status = 'queued' | 'in_progress' | 'completed' | 'failed' | 'cancelled';

const REMEMBERED = 1_000;
const ENDED = new Set<Status>(['completed', 'failed', 'cancelled']);
const SSE = { 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-cache' };
const JSON_TYPE = { 'content-type': 'application/json' };

/** An answer of the Responses protocol, kept in this process; it is made whether or not somebody listens. */
class StoredAnswer {
  readonly id: string;
  readonly input: unknown;
  readonly isBackground: boolean;
  readonly #reply: Reply;
  readonly #frames: string[] = [];
  readonly #listeners = new Set<() => void>();
  #status: Status = 'queued';
  #timer: NodeJS.Timeout | undefined;
  #wakeUp: (() => void) | undefined;

  constructor(reply: Reply, input: unknown, isBackground: boolean) {
    this.#reply = isBackground ? { ...reply, seed: randomBytes(32).toString('hex') } : reply;
    this.id = (responsesBody(this.#reply) as { id: string }).id;
    this.input = input;
    this.isBackground = isBackground;
  }

  get isEnded(): boolean {
    return ENDED.has(this.#status);
  }

  /** Makes the answer at the script's pace. */
  async play(bill: () => Promise<void>): Promise<void> {
    const { delayMs = 0, chunkMs = 0 } = this.#reply.timing;
    await this.#wait(delayMs);
    if (this.isEnded) return;
    if (this.#reply.error !== undefined) {
      this.#end('failed');
      return;
    }
    this.#status = 'in_progress';
    const frames = responsesFrames(this.#reply);
    const last = frames.pop();
    let pieces = 0;
    for (const { text, isPiece } of frames) {
      if (isPiece && pieces > 0) await this.#wait(chunkMs);
      if (this.isEnded) return;
      if (isPiece) pieces += 1;
      this.#push(text);
    }
    await bill();
    if (this.isEnded) return;
    if (last !== undefined) this.#frames.push(last.text);
    this.#end('completed');
  }

  cancel(): void {
    if (!this.isEnded) this.#end('cancelled');
  }

  body(): object {
    const whole = { ...responsesBody(this.#reply), background: this.isBackground, status: this.#status };
    if (this.#status === 'completed') return whole;
    const error = this.#reply.error;
    const failed = this.#status === 'failed' ? { code: 'server_error', message: error?.message ?? 'scripted' } : null;
    return { ...whole, output: [], usage: null, error: failed };
  }

  /** Sends the events behind `after`, those that are there and those that come. */
  follow(sink: AnswerSink, after: number): RunningCall {
    let next = after + 1;
    let isBlocked = false;
    const pump = (): void => {
      while (!isBlocked && next < this.#frames.length) {
        const frame = Buffer.from(this.#frames[next] ?? '');
        next += 1;
        isBlocked = !sink.onData(frame);
      }
      if (!this.isEnded || next < this.#frames.length) return;
      this.#listeners.delete(pump);
      sink.onEnd();
    };
    sink.onHead(200, SSE);
    this.#listeners.add(pump);
    // Not before the caller has the running call.
    queueMicrotask(pump);
    return {
      resume: () => {
        isBlocked = false;
        pump();
      },
      abort: () => void this.#listeners.delete(pump),
    };
  }

  #push(frame: string): void {
    this.#frames.push(frame);
    this.#wake();
  }

  #end(status: Status): void {
    this.#status = status;
    clearTimeout(this.#timer);
    this.#wakeUp?.();
    this.#wake();
  }

  #wake(): void {
    for (const listener of this.#listeners) listener();
  }

  async #wait(ms: number): Promise<void> {
    if (ms === 0) return;
    await new Promise<void>((resolve) => {
      this.#wakeUp = resolve;
      this.#timer = setTimeout(resolve, ms);
    });
  }
}

/** What the scripted model keeps of its answers: the last ones, in this process. */
export class ScriptedStore {
  readonly #answers = new Map<string, StoredAnswer>();

  /** Starts an answer that is made in the background and gives it, or its first state, to the caller. */
  start(
    how: { reply: Reply; request: Record<string, unknown>; bill: () => Promise<void> },
    sink: AnswerSink,
  ): RunningCall | undefined {
    const answer = this.#keep(new StoredAnswer(how.reply, how.request['input'], true));
    const first = answer.body();
    void answer.play(how.bill).catch(() => answer.cancel());
    if (how.request['stream'] === true) return answer.follow(sink, -1);
    sendWhole(sink, 200, first);
    return undefined;
  }

  /** Keeps an answer that was made while the caller waited. */
  async keep(reply: Reply, request: Record<string, unknown>): Promise<void> {
    const answer = new StoredAnswer({ ...reply, timing: {} }, request['input'], false);
    await answer.play(() => Promise.resolve());
    this.#keep(answer);
  }

  serve({ action, responseId, search }: StoredRequest, sink: AnswerSink): RunningCall {
    const answer = this.#answers.get(responseId);
    const query = new URLSearchParams(search);
    if (answer === undefined) {
      const message = `Response with id '${responseId}' not found.`;
      const error = { message, type: 'invalid_request_error', param: null, code: null };
      sendWhole(sink, 404, { error });
    } else if (action === 'retrieve' && query.get('stream') === 'true') {
      return answer.follow(sink, Number(query.get('starting_after') ?? -1));
    } else {
      sendWhole(sink, 200, this.#bodyOf(action, answer));
    }
    return { resume: () => undefined, abort: () => undefined };
  }

  close(): void {
    for (const answer of this.#answers.values()) answer.cancel();
  }

  #bodyOf(action: StoredRequest['action'], answer: StoredAnswer): object {
    if (action === 'cancel') answer.cancel();
    if (action === 'delete') {
      this.#answers.delete(answer.id);
      return { id: answer.id, object: 'response', deleted: true };
    }
    if (action !== 'input_items') return answer.body();
    const data = Array.isArray(answer.input)
      ? answer.input
      : [{ type: 'message', role: 'user', content: answer.input }];
    return { object: 'list', data, has_more: false, first_id: null, last_id: null };
  }

  #keep(answer: StoredAnswer): StoredAnswer {
    const oldest = this.#answers.keys().next().value;
    if (this.#answers.size >= REMEMBERED && oldest !== undefined) {
      this.#answers.get(oldest)?.cancel();
      this.#answers.delete(oldest);
    }
    this.#answers.set(answer.id, answer);
    return answer;
  }
}

function sendWhole(sink: AnswerSink, status: number, body: object): void {
  sink.onHead(status, JSON_TYPE);
  sink.onData(Buffer.from(JSON.stringify(body)));
  sink.onEnd();
}
