import { LonghaulError } from '../../contracts/error-codes.ts';
import { assertNever } from '../../contracts/states.ts';
import type { Pool } from '../../db/pool.ts';
import { countScriptedAsked, countScriptedBilled, type ScriptedPlace } from '../../db/queries/scripted-calls.ts';
import { googleStatus } from '../google-errors.ts';
import { parseJsonObject } from '../http.ts';
import type { Protocol } from '../protocol.ts';
import type { AnswerSink, Provider, ProviderRequest, RunningCall } from './port.ts';
import { readConversation } from './scripted-conversation.ts';
import type { Frame } from './scripted-frame.ts';
import { makeReply, type Reply } from './scripted-reply.ts';
import { ScriptError } from './scripted-script.ts';
import { ScriptedStore } from './scripted-stored.ts';
import { bodyOf, framesOf } from './scripted-wire.ts';

/** Counts of callers without a session are kept for this many steps. */
const REMEMBERED_PLACES = 10_000;

/** The offline model of development and tests: answers what the script in the conversation says. */
export function createScriptedProvider(pool: Pool): Provider {
  const counts = new ScriptedCounts(pool);
  const store = new ScriptedStore();
  const running = new Set<ScriptedCall>();
  return {
    name: 'scripted',
    start: (request, sink) => {
      const call = new ScriptedCall(request, sink, { counts, store });
      running.add(call);
      void call.play().finally(() => running.delete(call));
      return call;
    },
    stored: (request, sink) => store.serve(request, sink),
    close: () => {
      store.close();
      for (const call of running) call.abort();
      return Promise.resolve();
    },
  };
}

/** How often each step was asked for and billed: in the database for sessions, in memory for everybody else. */
class ScriptedCounts {
  readonly #pool: Pool;
  readonly #asked = new Map<string, number>();

  constructor(pool: Pool) {
    this.#pool = pool;
  }

  async asked(place: ScriptedPlace | undefined, reply: Reply): Promise<number> {
    if (place !== undefined) return countScriptedAsked(this.#pool, place);
    const key = `${reply.script}/${reply.step}`;
    const asked = (this.#asked.get(key) ?? 0) + 1;
    if (this.#asked.size >= REMEMBERED_PLACES) this.#asked.clear();
    this.#asked.set(key, asked);
    return asked;
  }

  async billed(place: ScriptedPlace | undefined): Promise<void> {
    if (place !== undefined) await countScriptedBilled(this.#pool, place);
  }
}

/** Thrown inside a call that was aborted; nobody hears it. */
class Aborted extends Error {}

class ScriptedCall implements RunningCall {
  readonly #request: ProviderRequest;
  readonly #sink: AnswerSink;
  readonly #counts: ScriptedCounts;
  readonly #store: ScriptedStore;
  #background: RunningCall | undefined;
  #isAborted = false;
  #wakeUp: (() => void) | undefined;
  #unblock: (() => void) | undefined;

  constructor(
    request: ProviderRequest,
    sink: AnswerSink,
    { counts, store }: { counts: ScriptedCounts; store: ScriptedStore },
  ) {
    this.#request = request;
    this.#sink = sink;
    this.#counts = counts;
    this.#store = store;
  }

  abort(): void {
    this.#isAborted = true;
    this.#background?.abort();
    this.#wakeUp?.();
    this.#unblock?.();
  }

  resume(): void {
    this.#background?.resume();
    this.#unblock?.();
  }

  async play(): Promise<void> {
    try {
      const parsed = parseJsonObject(this.#request.body);
      const reply = makeReply(readConversation(this.#request.protocol, parsed), this.#request.body.length);
      if (this.#request.operation === 'count_tokens') this.#sendWhole(200, countOf(this.#request.protocol, reply));
      else await this.#playReply(reply, parsed);
    } catch (error) {
      if (this.#isAborted || error instanceof Aborted) return;
      if (error instanceof ScriptError) {
        this.#sendError({ status: 400, type: 'invalid_request_error', message: error.message });
      } else
        this.#sink.onFailure(error instanceof LonghaulError ? error : new Error('scripted', { cause: error }), false);
    }
  }

  async #playReply(reply: Reply, parsed: Record<string, unknown>): Promise<void> {
    const { sessionId } = this.#request;
    const place = sessionId === undefined ? undefined : { sessionId, script: reply.script, step: reply.step };
    const asked = await this.#counts.asked(place, reply);
    const isStored = this.#request.protocol === 'responses' && parsed['store'] !== false;
    if (isStored && parsed['background'] === true) {
      this.#check();
      const bill = (): Promise<void> => this.#counts.billed(place);
      this.#background = this.#store.start({ reply, request: parsed, bill }, this.#sink);
      return;
    }
    await this.#wait(reply.timing.delayMs ?? 0);
    const { error } = reply;
    if (error !== undefined && asked <= (error.times ?? Number.POSITIVE_INFINITY)) {
      const message = error.message ?? `scripted error ${error.status}`;
      this.#sendError({ status: error.status, type: error.type, message });
      return;
    }
    if (reply.raw !== undefined) {
      this.#sendRaw(reply.raw.status, reply.raw.contentType, reply.raw.body);
      return;
    }
    if (isStored) await this.#store.keep(reply, parsed);
    if (parsed['stream'] === true) await this.#stream(reply, parsed, () => this.#counts.billed(place));
    else await this.#answerWhole(reply, () => this.#counts.billed(place));
  }

  async #answerWhole(reply: Reply, bill: () => Promise<void>): Promise<void> {
    const pieces = reply.blocks.flatMap((block) => block.pieces).length;
    const { cutAfterChunks, chunkMs = 0 } = reply.timing;
    await this.#wait(chunkMs * Math.max(0, Math.min(pieces, cutAfterChunks ?? pieces) - 1));
    if (cutAfterChunks !== undefined && cutAfterChunks < pieces) {
      this.#cut();
      return;
    }
    await bill();
    this.#check();
    this.#sendWhole(200, bodyOf(this.#request.protocol, reply));
  }

  async #stream(reply: Reply, parsed: Record<string, unknown>, bill: () => Promise<void>): Promise<void> {
    const groups = groupByPiece(framesOf(this.#request.protocol, reply, parsed));
    const last = groups.pop() ?? '';
    const { cutAfterChunks, chunkMs = 0 } = reply.timing;
    this.#sink.onHead(200, { 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-cache' });
    for (const [index, group] of groups.entries()) {
      if (index === cutAfterChunks) {
        this.#cut();
        return;
      }
      if (index > 0) await this.#wait(chunkMs);
      await this.#send(group);
    }
    if (cutAfterChunks === groups.length) {
      this.#cut();
      return;
    }
    // Billed before the end is told: who has seen the end finds it counted.
    await bill();
    await this.#send(last);
    this.#sink.onEnd();
  }

  #cut(): void {
    this.#sink.onFailure(new LonghaulError('provider_unavailable', 'the scripted model cut the connection'), false);
  }

  async #send(text: string): Promise<void> {
    this.#check();
    if (this.#sink.onData(Buffer.from(text))) return;
    await new Promise<void>((resolve) => {
      this.#unblock = resolve;
    });
    this.#unblock = undefined;
    this.#check();
  }

  async #wait(ms: number): Promise<void> {
    this.#check();
    if (ms === 0) return;
    let timer: NodeJS.Timeout | undefined;
    await new Promise<void>((resolve) => {
      timer = setTimeout(resolve, ms);
      this.#wakeUp = resolve;
    });
    clearTimeout(timer);
    this.#wakeUp = undefined;
    this.#check();
  }

  #check(): void {
    if (this.#isAborted) throw new Aborted();
  }

  #sendError(error: { status: number; type: string | undefined; message: string }): void {
    this.#sendWhole(error.status, errorBody(this.#request.protocol, error));
  }

  #sendWhole(status: number, body: object): void {
    this.#sendRaw(status, 'application/json', JSON.stringify(body));
  }

  #sendRaw(status: number, contentType: string, body: string): void {
    this.#sink.onHead(status, { 'content-type': contentType });
    this.#sink.onData(Buffer.from(body));
    this.#sink.onEnd();
  }
}

/** Frames joined so that each group ends with one piece; the last group is what follows the last piece. */
function groupByPiece(frames: Frame[]): string[] {
  const groups: string[] = [];
  let open = '';
  for (const { text, isPiece } of frames) {
    open += text;
    if (!isPiece) continue;
    groups.push(open);
    open = '';
  }
  return [...groups, open];
}

function countOf(protocol: Protocol, { usage }: Reply): object {
  return protocol === 'gemini' ? { totalTokens: usage.input } : { input_tokens: usage.input };
}

function errorBody(
  protocol: Protocol,
  { status, type, message }: { status: number; type: string | undefined; message: string },
): object {
  switch (protocol) {
    case 'messages':
      return { type: 'error', error: { type: type ?? 'api_error', message } };
    case 'chat':
    case 'responses':
      return { error: { message, type: type ?? 'api_error', param: null, code: null } };
    case 'gemini':
      return { error: { code: status, message, status: type ?? googleStatus(status) } };
    default:
      return assertNever(protocol);
  }
}
