import { setTimeout as delay } from 'node:timers/promises';
import canonicalize from 'canonicalize';
import { anyAbort, within } from '../../../contracts/abort.ts';
import { unlessAborted } from '../../sandbox/abort.ts';
import { isAlive } from '../../sandbox/local/host.ts';
import type { HarnessSpec, TurnHost, TurnOutcome, TurnSpec } from '../port.ts';
import { OpenCodeRefusal, type OpenCodeApi, type Prompt } from './api.ts';
import type { EventBus } from './bus.ts';
import { promptParts } from './content.ts';
import { EventReader } from './events.ts';
import { idTail, messageIdAfter } from './ids.ts';
import { crashed, failed, outcomeOf } from './outcome.ts';
import { AGENT, modelRef, type Wire } from './settings.ts';
import type { Message, OpenEvent, PermissionAsked } from './wire.ts';

/** After an abort the turn ends at once; a server that does not even do that is left to the next attempt. */
const ABORT_MS = 60_000;
const RECONNECTS = 20;
const RECONNECT_MS = 250;

interface TurnParts {
  api: OpenCodeApi;
  bus: EventBus;
  spec: HarnessSpec;
  sessionId: string;
  /** Ids of messages that were chosen, by what they are for. */
  sent: Record<string, string>;
  turn: TurnSpec;
  wire: Wire;
  host: TurnHost;
  saveSent: (sent: Record<string, string>) => Promise<void>;
}

/** One attempt at a turn. */
export class OpenCodeTurn {
  readonly #parts: TurnParts;
  readonly #end = new AbortController();
  readonly #asked = new Set<string>();
  /** Events are told one after the other. */
  #telling: Promise<void> = Promise.resolve();
  #reader: EventReader | undefined;
  readonly #park = new AbortController();

  constructor(parts: TurnParts) {
    this.#parts = parts;
  }

  async run(signal: AbortSignal): Promise<TurnOutcome> {
    const { bus, spec } = this.#parts;
    const listener = { onEvent: (event: OpenEvent) => this.#hear(event), onGap: () => this.#readAgain() };
    const leave = await bus.subscribe(spec.cwd, listener, signal);
    try {
      return await this.#runHeard(signal);
    } finally {
      this.#end.abort();
      leave();
      await this.#telling;
    }
  }

  async #runHeard(signal: AbortSignal): Promise<TurnOutcome> {
    const { api, sessionId, host } = this.#parts;
    const history = await api.messages(sessionId, signal);
    const prompt = await this.#prompt(history);
    this.#reader = new EventReader(sessionId, this.#servers(), prompt.messageID);
    this.#tell(this.#reader.ofHistory(history));
    for (const request of await api.permissions(signal)) this.#ask(request);
    const running = this.#untilItEnds(prompt);
    const park = anyAbort([host.parkSignal, this.#park.signal]);
    const stop = await firstOf(running, { cancel: signal, park, detach: host.detachSignal });
    if (typeof stop === 'object') return this.#finish(stop, prompt);
    if (stop === 'detach') return { kind: 'detached' };
    await this.#abort(running);
    return stop === 'park' ? { kind: 'parked' } : { kind: 'cancelled' };
  }

  /** The message to send: this turn's, or what became of it since, when OpenCode has that already. */
  async #prompt(history: readonly Message[]): Promise<Prompt> {
    const { turn, wire, sent, saveSent } = this.#parts;
    const users = history.filter(({ info }) => info.role === 'user').map(({ info }) => info.id);
    const known = (purpose: string): string | undefined => {
      const tail = idTail(turn.messageId, purpose);
      return users.find((id) => id.endsWith(tail));
    };
    const first = known('message');
    const isContinued = first !== undefined && turn.continuation !== null && !isOver(history);
    const purpose = isContinued ? `continuation ${turn.attempt}` : 'message';
    const tail = idTail(turn.messageId, purpose);
    let id = isContinued ? known(purpose) : first;
    // One that was sent a moment ago may not be in the history yet.
    id ??= Object.values(sent).find((each) => each.endsWith(tail));
    if (id === undefined) {
      id = messageIdAfter(
        history.map(({ info }) => info.id),
        tail,
        Date.now(),
      );
      await saveSent({ [purpose]: id });
    }
    const content = isContinued ? [] : turn.content;
    return {
      messageID: id,
      model: modelRef(turn.model, wire),
      agent: AGENT,
      parts: promptParts(id, content, isContinued || first === undefined ? turn.continuation : null),
    };
  }

  #servers(): string[] {
    return this.#parts.spec.mcpServers.map(({ name }) => name);
  }

  /** Sends the message, again when the connection broke; ends with the last message of the turn, or in words. */
  async #untilItEnds(prompt: Prompt): Promise<Message | TurnOutcome> {
    const { api, sessionId } = this.#parts;
    for (let lost = 0; ; lost += 1) {
      try {
        return await api.prompt(sessionId, prompt, this.#end.signal);
      } catch (error) {
        const message = error instanceof Error ? error.message : String(error);
        if (error instanceof OpenCodeRefusal) return refusedOutcome(error);
        if (!isAlive(api.server)) return crashed('the OpenCode server ended');
        if (lost >= RECONNECTS || this.#end.signal.aborted) return crashed(`the OpenCode server is away: ${message}`);
        await delay(RECONNECT_MS);
      }
    }
  }

  /** The stream may be behind the answer: what is recorded is read once more. */
  async #finish(last: Message | TurnOutcome, prompt: Prompt): Promise<TurnOutcome> {
    if ('kind' in last) return last;
    const { api, sessionId } = this.#parts;
    try {
      const history = await api.messages(sessionId, this.#end.signal);
      this.#tell(this.#reader?.ofHistory(history) ?? []);
      const final = history.findLast(({ info }) => info.role === 'assistant' && info.id > prompt.messageID) ?? last;
      const outcome = outcomeOf(final.info);
      return outcome.kind === 'cancelled' ? crashed('somebody else ended the turn in OpenCode') : outcome;
    } catch (error) {
      if (!isAlive(api.server)) return crashed('the OpenCode server ended');
      throw error;
    }
  }

  async #abort(running: Promise<unknown>): Promise<void> {
    const { api, sessionId } = this.#parts;
    try {
      await within(this.#end.signal, ABORT_MS, async (limit) => {
        await api.abort(sessionId, limit);
        await unlessAborted(limit, running);
      });
    } catch (error) {
      if (isAlive(api.server)) throw error;
    }
  }

  #hear(event: OpenEvent): void {
    if (this.#reader === undefined) return;
    if (event.type === 'permission.asked') this.#ask(event.properties);
    this.#tell(this.#reader.ofEvent(event));
  }

  /** The stream was cut: what it would have said is in the record, except for deltas. */
  #readAgain(): void {
    const { api, sessionId } = this.#parts;
    const reader = this.#reader;
    if (reader === undefined) return;
    const read = async (): Promise<void> => {
      this.#tell(reader.ofHistory(await api.messages(sessionId, this.#end.signal)));
      for (const request of await api.permissions(this.#end.signal)) this.#ask(request);
    };
    // What fails here fails for the request that waits for the end of the turn, too.
    void read().catch(() => undefined);
  }

  #tell(events: Parameters<TurnHost['emit']>[0][]): void {
    const { host } = this.#parts;
    this.#telling = events.reduce(
      (before, event) =>
        before.then(() => (this.#end.signal.aborted && isPreview(event) ? undefined : host.emit(event))),
      this.#telling,
    );
    // Said by the run, which waits for the end of the chain.
    this.#telling.catch(() => undefined);
  }

  #ask(request: PermissionAsked): void {
    if (request.sessionID !== this.#parts.sessionId || this.#asked.has(request.id)) return;
    this.#asked.add(request.id);
    void this.#answer(request).catch(() => undefined);
  }

  async #answer(request: PermissionAsked): Promise<void> {
    const { api, host } = this.#parts;
    const input = { patterns: request.patterns ?? [], ...request.metadata };
    const callId = request.tool?.callID ?? request.id;
    const answer = await host.permission({ callId, tool: request.permission, input });
    switch (answer.decision) {
      case 'allow':
        await api.reply(request.id, replyFor(request.permission, input, answer.input), this.#end.signal);
        return;
      case 'deny':
        await api.reply(request.id, { reply: 'reject', message: answer.message }, this.#end.signal);
        return;
      case 'park':
        this.#park.abort();
    }
  }
}

/** A permission of OpenCode's is for the call as it stands: arguments that a person changed are the model's to use. */
function replyFor(tool: string, asked: object, allowed: object): { reply: 'once' | 'reject'; message?: string } {
  const change = canonicalize(allowed);
  if (change === canonicalize(asked)) return { reply: 'once' };
  return { reply: 'reject', message: `Call ${tool} with ${change} instead.` };
}

/** The model has said its last word on it: to send the message again only tells how it ended. */
function isOver(history: readonly Message[]): boolean {
  const last = history.at(-1)?.info;
  return last?.role === 'assistant' && last.error === undefined && last.finish === 'stop';
}

function isPreview(event: { type: string }): boolean {
  return event.type.endsWith('_delta') || event.type === 'activity';
}

type Stop = 'cancel' | 'park' | 'detach';

/** What comes first: the end of the work, or a reason to stop it. */
async function firstOf<T>(work: Promise<T>, stops: Record<Stop, AbortSignal>): Promise<T | Stop> {
  const over = new AbortController();
  const reasons = Object.entries(stops) as [Stop, AbortSignal][];
  try {
    return await Promise.race([work, ...reasons.map(([name, signal]) => untilAborted(signal, over.signal, name))]);
  } finally {
    over.abort();
  }
}

/** Stops listening when it is over. */
function untilAborted<T>(signal: AbortSignal, over: AbortSignal, value: T): Promise<T> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve(value);
    else signal.addEventListener('abort', () => resolve(value), { once: true, signal: over });
  });
}

function refusedOutcome(error: OpenCodeRefusal): TurnOutcome {
  if (error.status === 404) return failed('harness_crash', 404, 'OpenCode has lost the session', false);
  return failed(
    error.status >= 500 ? 'harness_crash' : 'bad_request',
    error.status,
    error.message,
    error.status >= 500,
  );
}
