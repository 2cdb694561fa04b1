import { setTimeout as delay } from 'node:timers/promises';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import type { HarnessSpec, TurnHost, TurnOutcome, TurnSpec } from '../port.ts';
import { CodexRequestError, type CodexConnection } from './connection.ts';
import { completedEvents, eventId, startedEvents, usageEvent } from './events.ts';
import { crashOf, failureOf, messageOf, statusOf } from './faults.ts';
import { userInput } from './input.ts';
import type { CodexItem, CodexTurn, ServerMessage } from './protocol.ts';
import { newestTurns } from './thread.ts';

/** How long an interrupted turn may take to end before the connection is given up. */
const INTERRUPT_MS = 15_000;
const LOOK_AGAIN_MS = 50;
const LOOKS = 100;
const RATE_LIMIT_WAITS_MS = [1_000, 2_000, 4_000, 8_000];
const CONTINUE =
  'You were interrupted: calls of tools whose result you did not see may or may not have run. Go on where you stopped.';

type Wanted = 'cancelled' | 'parked' | 'detached';

interface TurnParts {
  connection: CodexConnection;
  threadId: string;
  spec: HarnessSpec;
  turn: TurnSpec;
  host: TurnHost;
  /** A turn whose end was told already: it is not taken for the end of a later attempt. */
  settledTurn: string | undefined;
}

/** One attempt of a turn, started or found running. */
export class CodexTurnRun {
  readonly #parts: TurnParts;
  readonly #platformServers: ReadonlySet<string>;
  /** Codex's id of the turn that is followed. */
  #turnId: string | undefined;
  /** Messages are told in their order, one after the other. */
  #told: Promise<void> = Promise.resolve();
  #early: ServerMessage[] = [];
  #retries = 0;
  #waits = 0;
  /** Between two asks after a 429: nothing runs in codex. */
  #isWaiting = false;
  #wanted: Wanted | undefined;
  #end: (outcome: TurnOutcome) => void = () => undefined;
  readonly #ended: Promise<TurnOutcome>;

  constructor(parts: TurnParts) {
    this.#parts = parts;
    this.#platformServers = new Set(parts.spec.mcpServers.map(({ name }) => name));
    this.#ended = new Promise((resolve) => {
      this.#end = resolve;
    });
  }

  get turnId(): string | undefined {
    return this.#turnId;
  }

  async run(signal: AbortSignal): Promise<TurnOutcome> {
    const { connection, host } = this.#parts;
    connection.onClose(() => this.#lost());
    connection.read((message) => this.#receive(message));
    const stop = (wanted: Wanted) => (): void => this.#stop(wanted);
    const stops: [AbortSignal, () => void][] = [
      [signal, stop('cancelled')],
      [host.parkSignal, stop('parked')],
      [host.detachSignal, stop('detached')],
    ];
    try {
      await this.#begin();
      for (const [each, listener] of stops) {
        if (each.aborted) listener();
        else each.addEventListener('abort', listener, { once: true });
      }
      return await this.#ended;
    } finally {
      for (const [each, listener] of stops) each.removeEventListener('abort', listener);
    }
  }

  /** Follows the turn this message has begun already, or begins one. */
  async #begin(): Promise<void> {
    const { turn, settledTurn } = this.#parts;
    const known = await this.#known();
    const last = known.at(-1);
    await this.#tellHistory(known);
    if (last?.status === 'inProgress') {
      this.#follow(last.id);
      return;
    }
    // A turn that came to its end has its outcome, whoever looks; one that was interrupted has to go on.
    if (last !== undefined && last.status !== 'interrupted' && last.id !== settledTurn) {
      this.#turnId = last.id;
      this.#end(this.#outcomeOf(last));
      return;
    }
    await this.#start(last === undefined ? userInput(turn.content) : continuation(turn, last), known.length);
  }

  /** Codex's turns of this message, oldest first. What still runs of an earlier message is interrupted. */
  async #known(): Promise<CodexTurn[]> {
    const { connection, threadId, turn } = this.#parts;
    for (let look = 0; ; look += 1) {
      const newest = await newestTurns(connection, threadId, (each) => this.#isForeign(each));
      // A turn without a message goes on with the message before it.
      const oldestOwn = newest.findLastIndex((each) => clientIdOf(each)?.startsWith(`${turn.messageId}.`) === true);
      const known = newest.slice(0, oldestOwn + 1).toReversed();
      const [last] = newest;
      if (last?.status !== 'inProgress' || known.length > 0) return known;
      // Its message may not be written yet: whose it is will be known in a moment.
      if (this.#isForeign(last) || look >= LOOKS) await this.#interrupt(last.id);
      if (look >= LOOKS * 2) throw new LonghaulError('harness_unavailable', 'codex does not end an earlier turn');
      await delay(LOOK_AGAIN_MS);
    }
  }

  #isForeign(each: CodexTurn): boolean {
    return clientIdOf(each)?.startsWith(`${this.#parts.turn.messageId}.`) === false;
  }

  /** Without input the model is asked again with the history as it is. */
  async #start(input: object[], number: number): Promise<void> {
    const { connection, threadId, turn } = this.#parts;
    const started = await connection.request<{ turn: { id: string } }>('turn/start', {
      threadId,
      clientUserMessageId: `${turn.messageId}.${turn.attempt}.${number}`,
      input,
      model: turn.model,
      environments: [],
    });
    this.#follow(started.turn.id);
  }

  #follow(turnId: string): void {
    this.#turnId = turnId;
    const early = this.#early;
    this.#early = [];
    for (const message of early) this.#receive(message);
  }

  async #tellHistory(turns: CodexTurn[]): Promise<void> {
    for (const { id, items, status } of turns) {
      for (const item of items) {
        const isWhole = status !== 'inProgress' || isDone(item);
        const events = isWhole ? completedEvents(id, item, this.#platformServers) : startedEvents(id, item);
        for (const event of events) await this.#parts.host.emit(event);
      }
    }
  }

  #receive(message: ServerMessage): void {
    if (this.#turnId === undefined) {
      this.#early.push(message);
      return;
    }
    const of = turnOf(message);
    if (of !== undefined && of !== this.#turnId) return;
    if ('id' in message) this.#refuse(message);
    else this.#told = this.#told.then(() => this.#tell(message)).catch((error: unknown) => this.#failed(error));
  }

  async #tell(message: Exclude<ServerMessage, { id: unknown }>): Promise<void> {
    const { host } = this.#parts;
    switch (message.method) {
      case 'item/agentMessage/delta':
      case 'item/reasoning/summaryTextDelta':
      case 'item/reasoning/textDelta': {
        const { turnId, itemId, delta } = message.params;
        const type = message.method === 'item/agentMessage/delta' ? 'text_delta' : 'thinking_delta';
        return host.emit({ type, id: eventId(turnId, itemId), text: delta });
      }
      case 'item/started': {
        const { turnId, item } = message.params;
        for (const event of startedEvents(turnId, item)) await host.emit(event);
        return;
      }
      case 'item/completed': {
        const { turnId, item } = message.params;
        for (const event of completedEvents(turnId, item, this.#platformServers)) await host.emit(event);
        return;
      }
      case 'thread/tokenUsage/updated': {
        const { turnId, tokenUsage } = message.params;
        return host.emit(usageEvent(turnId, tokenUsage.total, tokenUsage.last));
      }
      case 'turn/plan/updated':
        return this.#tellPlan(message.params);
      case 'error':
        return this.#tellError(message.params);
      case 'turn/completed':
        return this.#over(message.params.turn);
      default:
    }
  }

  async #over(turn: CodexTurn): Promise<void> {
    const outcome = this.#outcomeOf(turn);
    const isLimited = outcome.kind === 'failed' && outcome.fault === 'rate_limit' && outcome.httpStatus === 429;
    if (isLimited && this.#wanted === undefined && this.#waits < RATE_LIMIT_WAITS_MS.length) {
      await this.#askAgain(turn.id, outcome.message);
    } else this.#end(outcome);
  }

  /** Codex gives up at the first 429: the model is asked again, a little later. */
  async #askAgain(failedTurn: string, message: string): Promise<void> {
    const waitMs = RATE_LIMIT_WAITS_MS[this.#waits] ?? 0;
    this.#waits += 1;
    this.#retries += 1;
    const attempt = this.#retries;
    this.#isWaiting = true;
    await this.#parts.host.emit({ type: 'retry', id: `${failedTurn}/again`, attempt, message, httpStatus: 429 });
    await Promise.race([delay(waitMs), this.#ended]);
    this.#isWaiting = false;
    if (this.#wanted !== undefined) return;
    this.#turnId = undefined;
    await this.#start([], this.#waits);
  }

  async #tellPlan(params: Extract<ServerMessage, { method: 'turn/plan/updated' }>['params']): Promise<void> {
    const items = params.plan.map(({ step, status }) => ({
      text: step,
      status: status === 'inProgress' ? ('in_progress' as const) : status,
    }));
    await this.#parts.host.emit({ type: 'todo', id: `${params.turnId}/plan`, items });
  }

  async #tellError(params: Extract<ServerMessage, { method: 'error' }>['params']): Promise<void> {
    if (!params.willRetry) return;
    this.#retries += 1;
    await this.#parts.host.emit({
      type: 'retry',
      id: `${params.turnId}/retry-${this.#retries}`,
      attempt: this.#retries,
      message: messageOf(params.error),
      httpStatus: statusOf(params.error),
    });
  }

  /** Codex asks for nothing here: its own hands are off, and ours are judged by the platform. */
  #refuse(message: Extract<ServerMessage, { id: unknown }>): void {
    const { connection } = this.#parts;
    switch (message.method) {
      case 'item/commandExecution/requestApproval':
      case 'item/fileChange/requestApproval':
        connection.answer(message.id, { decision: 'decline' });
        return;
      case 'mcpServer/elicitation/request':
        connection.answer(message.id, { action: 'decline', content: null, _meta: null });
        return;
      default:
        connection.refuse(message.id);
    }
  }

  #outcomeOf(turn: CodexTurn): TurnOutcome {
    switch (turn.status) {
      case 'completed':
        return { kind: 'completed', stopReason: 'end_turn' };
      case 'failed':
        return failureOf(turn.error);
      default:
        return this.#wanted === 'parked' || this.#wanted === 'cancelled'
          ? { kind: this.#wanted }
          : crashOf('codex interrupted the turn');
    }
  }

  #stop(wanted: Wanted): void {
    if (this.#wanted !== undefined) return;
    this.#wanted = wanted;
    if (wanted === 'detached') {
      this.#end({ kind: 'detached' });
      return;
    }
    if (this.#isWaiting || this.#turnId === undefined) {
      this.#end({ kind: wanted });
      return;
    }
    const timer = setTimeout(() => this.#end(crashOf('codex did not interrupt the turn')), INTERRUPT_MS);
    void this.#ended.finally(() => clearTimeout(timer));
    this.#interrupt(this.#turnId).catch((error: unknown) => this.#failed(error));
  }

  async #interrupt(turnId: string): Promise<void> {
    const { connection, threadId } = this.#parts;
    try {
      await connection.request('turn/interrupt', { threadId, turnId });
    } catch (error) {
      // It ended by itself in the meantime.
      if (!(error instanceof CodexRequestError)) throw error;
    }
  }

  #lost(): void {
    // What was told before the end is told first.
    void this.#told.finally(() => this.#end(crashOf('codex ended while the turn ran')));
  }

  #failed(error: unknown): void {
    this.#end(crashOf(error instanceof Error ? error.message : String(error)));
  }
}

function clientIdOf(turn: CodexTurn): string | undefined {
  for (const item of turn.items) if (item.type === 'userMessage') return item.clientId ?? '';
  return undefined;
}

/** Words where there is something to say or the model spoke last; else it goes on from its history. */
function continuation(turn: TurnSpec, last: CodexTurn): object[] {
  const isModels = last.items.at(-1)?.type === 'agentMessage';
  const words = turn.continuation ?? (isModels ? CONTINUE : null);
  return words === null ? [] : userInput([{ type: 'text', text: words }]);
}

function isDone(item: CodexItem): boolean {
  if ('status' in item) return item.status !== 'inProgress';
  return item.completedAtMs !== null && item.completedAtMs !== undefined;
}

function turnOf(message: ServerMessage): string | undefined {
  const { params } = message;
  if ('turnId' in params) return params.turnId;
  return 'turn' in params ? params.turn.id : undefined;
}
