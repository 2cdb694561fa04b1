import {
  methods,
  type PermissionOption,
  type RequestPermissionRequest,
  type RequestPermissionResponse,
} from '@agentclientprotocol/sdk';
import canonicalize from 'canonicalize';
import type { HarnessUsage, PermissionAnswer, TurnHost, TurnOutcome, TurnSpec } from '../port.ts';
import type { Answer } from './connection.ts';
import { faultInText, faultOf } from './faults.ts';
import { promptOf } from './prompt.ts';
import type { AcpSession } from './session.ts';
import { writeToken } from './token.ts';
import { TurnUpdates } from './updates.ts';

/** An agent that was told to stop and goes on for longer is ended. */
const STOP_MS = 15_000;
const END_MS = 60_000;
const REFUSED: RequestPermissionResponse = { outcome: { outcome: 'cancelled' } };

type Stopped = Extract<TurnOutcome, { kind: 'cancelled' | 'parked' | 'detached' }>['kind'];

/** One attempt at a turn, from its prompt to its end. */
export class AcpTurn {
  readonly #session: AcpSession;
  readonly #turn: TurnSpec;
  readonly #host: TurnHost;
  readonly #stopping = new AbortController();
  #stopped: Stopped | undefined;
  #updates: TurnUpdates | undefined;
  #killing: NodeJS.Timeout | undefined;
  /** Why calls were refused, as long as the model was not told. */
  #reasons: string[] = [];

  constructor(session: AcpSession, turn: TurnSpec, host: TurnHost) {
    this.#session = session;
    this.#turn = turn;
    this.#host = host;
  }

  async run(signal: AbortSignal): Promise<TurnOutcome> {
    const { parkSignal, detachSignal } = this.#host;
    const release = [
      onAbort(signal, () => this.#stop('cancelled')),
      onAbort(parkSignal, () => this.#stop('parked')),
      onAbort(detachSignal, () => this.#stop('detached')),
    ];
    try {
      return await this.#run();
    } catch (error) {
      if (this.#stopped !== undefined) return { kind: this.#stopped };
      return faultOf(error);
    } finally {
      for (const off of release) off();
      clearTimeout(this.#killing);
      this.#session.connection.listen(undefined);
    }
  }

  async #run(): Promise<TurnOutcome> {
    const { turn } = this.#session.token;
    const isRunning = turn !== null && !turn.isOver && turn.messageId === this.#turn.messageId;
    const runs = isRunning && this.#session.sent.has(turn.messageId);
    let answer = runs ? await this.#adopt(turn.requestId) : await this.#begin();
    while (this.#stopped === undefined && this.#mustExplain(answer)) {
      const text = this.#reasons.join('\n');
      this.#reasons = [];
      answer = await this.#send([{ type: 'text', text }]);
    }
    return this.#stopped === undefined ? this.#outcomeOf(answer) : { kind: this.#stopped };
  }

  async #begin(): Promise<Answer> {
    if (this.#session.parts.recipe.model === 'protocol') await this.#session.setModel(this.#turn.model);
    return this.#send(promptOf(this.#session, this.#turn));
  }

  async #send(prompt: object[]): Promise<Answer> {
    const { token, connection, prompts } = this.#session;
    const { messageId } = this.#turn;
    const isFirst = token.turn?.messageId !== messageId;
    token.turn = {
      messageId,
      requestId: connection.nextId,
      readFrom: connection.readTo,
      answered: [],
      isOver: false,
      promptsBefore: isFirst ? prompts : (token.turn?.promptsBefore ?? prompts),
    };
    // Written down before it is sent: who comes after a crash looks whether the agent has it.
    await this.#checkpoint();
    if (this.#stopping.signal.aborted) return {};
    this.#listen(token.turn.requestId);
    this.#session.prompts += 1;
    const answer = connection.prompt({ sessionId: this.#session.sessionId, prompt });
    this.#session.sent.add(messageId);
    return this.#ended(answer);
  }

  /** A worker before this one sent the prompt; its answer is waited for. */
  #adopt(requestId: number): Promise<Answer> {
    this.#listen(requestId);
    return this.#ended(this.#session.connection.prompt({}, requestId));
  }

  async #ended(answer: Promise<Answer>): Promise<Answer> {
    const { token } = this.#session;
    try {
      return await answer;
    } finally {
      await this.#updates?.flush();
      if (this.#stopped !== 'detached' && token.turn !== null) {
        token.turn.isOver = true;
        await this.#checkpoint();
      }
    }
  }

  #listen(requestId: number): void {
    // Read again by another worker the same request makes the same ids; another process never has the same request.
    const prefix = `${this.#turn.messageId.slice(0, 16)}.${requestId}`;
    const updates = new TurnUpdates(prefix, this.#session.parts.recipe, (event) => this.#host.emit(event));
    this.#updates = updates;
    this.#session.connection.listen({
      update: (update) => updates.take(update),
      permission: (id, request) => this.#permission(updates, id, request),
      answered: async (id) => {
        this.#session.token.turn?.answered.push(id);
        await this.#checkpoint();
      },
    });
  }

  async #permission(
    updates: TurnUpdates,
    requestId: string,
    request: RequestPermissionRequest,
  ): Promise<RequestPermissionResponse> {
    if (this.#session.token.turn?.answered.includes(requestId) === true) return new Promise<never>(() => undefined);
    const asked = await updates.asked(request.toolCall);
    // Ours asks by itself when it is called.
    if (asked === undefined) return choose(request.options, 'allow_once');
    const answer = await this.#unlessStopped(this.#host.permission(asked));
    if (answer === undefined) return REFUSED;
    switch (answer.decision) {
      case 'park':
        this.#stop('parked');
        return REFUSED;
      case 'deny':
        return this.#refuse(updates, request.options, answer.message);
      case 'allow':
        if (canonicalize(answer.input) === canonicalize(asked.input)) return choose(request.options, 'allow_once');
        return this.#refuse(updates, request.options, `Call ${asked.tool} with ${canonicalize(answer.input)} instead.`);
    }
  }

  #refuse(updates: TurnUpdates, options: PermissionOption[], reason: string): RequestPermissionResponse {
    this.#reasons.push(reason);
    updates.saidSinceRefusal = false;
    return choose(options, 'reject_once');
  }

  /** The agent ended its turn for a refusal, before the model heard why. */
  #mustExplain(answer: Answer): boolean {
    return this.#reasons.length > 0 && answer['stopReason'] === 'end_turn' && this.#updates?.saidSinceRefusal === false;
  }

  async #unlessStopped(wait: Promise<PermissionAnswer>): Promise<PermissionAnswer | undefined> {
    const { signal } = this.#stopping;
    let off: (() => void) | undefined;
    const stopped = new Promise<undefined>((resolve) => {
      off = onAbort(signal, () => resolve(undefined));
    });
    try {
      return await Promise.race([wait, stopped]);
    } finally {
      off?.();
    }
  }

  #stop(why: Stopped): void {
    const { connection, parts } = this.#session;
    if (this.#stopped !== undefined || (why === 'detached' && !parts.place.survivesWorker)) return;
    this.#stopped = why;
    this.#stopping.abort();
    if (why === 'detached') {
      connection.release();
      return;
    }
    const { sessionId } = this.#session;
    void connection.notify(methods.agent.session.cancel, { sessionId }).catch(() => undefined);
    this.#killing = setTimeout(() => {
      void parts.place.end(parts.spec.sessionId, AbortSignal.timeout(END_MS)).catch(() => undefined);
    }, STOP_MS);
  }

  async #outcomeOf(answer: Answer): Promise<TurnOutcome> {
    const usage = usageOf(answer);
    const updates = this.#updates;
    if (usage !== undefined) {
      await this.#host.emit({ type: 'usage', id: `${this.#turn.messageId}.${this.#turn.attempt}`, usage });
    } else if (this.#session.parts.recipe.hidesErrors && updates !== undefined) {
      const fault = faultInText(updates.lastText);
      if (fault !== undefined) return fault;
    }
    switch (answer['stopReason']) {
      case 'max_tokens':
      case 'refusal':
        return { kind: 'completed', stopReason: answer['stopReason'] };
      case 'cancelled':
        return { kind: 'cancelled' };
      case 'max_turn_requests':
        return { kind: 'failed', fault: 'budget', retryable: false, httpStatus: null, message: 'too many model calls' };
      default:
        return { kind: 'completed', stopReason: 'end_turn' };
    }
  }

  async #checkpoint(): Promise<void> {
    await this.#host.checkpoint(writeToken(this.#session.current()));
  }
}

/** By its kind, never by its place: some agents list `allow_always` first. Without such an option the call is refused. */
function choose(options: PermissionOption[], kind: PermissionOption['kind']): RequestPermissionResponse {
  const option = options.find((each) => each.kind === kind);
  return option === undefined ? REFUSED : { outcome: { outcome: 'selected', optionId: option.optionId } };
}

function onAbort(signal: AbortSignal, act: () => void): () => void {
  if (signal.aborted) act();
  signal.addEventListener('abort', act, { once: true });
  return () => signal.removeEventListener('abort', act);
}

/** Agents count in one of two places; some do not count at all. */
function usageOf(answer: Answer): HarnessUsage | undefined {
  const usage = answer['usage'] as Record<string, unknown> | null | undefined;
  const meta = answer['_meta'] as { quota?: { token_count?: Record<string, unknown> } } | null | undefined;
  const quota = meta?.quota?.token_count;
  const [found, names] = usage
    ? [usage, ['inputTokens', 'cachedReadTokens', 'cachedWriteTokens', 'outputTokens']]
    : [quota, ['input_tokens', 'cached_tokens', '', 'output_tokens']];
  if (found === undefined) return undefined;
  const [input, cacheRead, cacheWrite, output] = names.map((name) => Number(found[name] ?? 0) || 0);
  return {
    inputTokens: input ?? 0,
    cacheReadTokens: cacheRead ?? 0,
    cacheWriteTokens: cacheWrite ?? 0,
    outputTokens: output ?? 0,
    costMicros: null,
  };
}
