import { setTimeout as delay } from 'node:timers/promises';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import { OWN_MCP_SERVER } from '../../../contracts/mcp.ts';
import type { HarnessSpec, TurnHost, TurnOutcome, TurnSpec } from '../port.ts';
import { eventsOf, type BegunCalls } from './events.ts';
import { crashOf, failureOf } from './faults.ts';
import { messageOf } from './message.ts';
import type { CopilotError, CopilotEvent, CopilotSession } from './sdk.ts';
import type { CopilotLink } from './server.ts';
import { sessionConfig } from './session.ts';
import { isKept } from './state.ts';

const CONTINUE =
  'You were interrupted: calls of tools whose result you did not see may or may not have run. Go on where you stopped.';
/** How long the runtime may take to reach the tools. */
const TOOLS_MS = 60_000;
const ABORT_MS = 15_000;

/** What is stored of a session; plain JSON. */
export interface Token extends Record<string, unknown> {
  sessionId: string;
  /** The message of the last turn, and how many the session had before it. */
  sent?: { messageId: string; before: number };
  /** The event of a failure that was told. */
  settled?: string;
}

interface TurnParts {
  link: CopilotLink;
  home: string;
  spec: HarnessSpec;
  token: Token;
  turn: TurnSpec;
  host: TurnHost;
}

/** One attempt of a turn. The runtime ends what it did for a client that is gone, so it is always begun anew. */
export class CopilotTurnRun {
  readonly #parts: TurnParts;
  readonly #begun: BegunCalls = new Map();
  readonly #retries = { count: 0 };
  #toolsStatus: (status: string) => void = () => undefined;
  readonly #tools = new Promise<string>((resolve) => {
    this.#toolsStatus = resolve;
  });
  #told: Promise<void> = Promise.resolve();
  #error: (CopilotError & { id: string }) | undefined;
  #isSent = false;
  #wanted: 'cancelled' | 'parked' | 'detached' | undefined;
  #end: (outcome: TurnOutcome) => void = () => undefined;
  readonly #ended: Promise<TurnOutcome>;

  constructor(parts: TurnParts) {
    this.#parts = parts;
    this.#ended = new Promise((resolve) => {
      this.#end = resolve;
    });
  }

  async run(signal: AbortSignal): Promise<TurnOutcome> {
    const { link, host } = this.#parts;
    void link.lost.then(() => this.#told.finally(() => this.#end(crashOf('the Copilot runtime ended'))));
    const session = await Promise.race([this.#open(), this.#lost()]);
    const stops = [
      [signal, 'cancelled'],
      [host.parkSignal, 'parked'],
      [host.detachSignal, 'detached'],
    ] as const;
    const listeners = stops.map(([each, wanted]) => {
      const listener = (): void => this.#stop(session, wanted);
      each.addEventListener('abort', listener, { once: true });
      return () => each.removeEventListener('abort', listener);
    });
    try {
      await Promise.race([this.#begin(session), this.#lost()]);
      for (const [each, wanted] of stops) if (each.aborted) this.#stop(session, wanted);
      const outcome = await this.#ended;
      await Promise.race([session.disconnect().catch(() => undefined), this.#parts.link.lost]);
      return outcome;
    } finally {
      for (const remove of listeners) remove();
    }
  }

  async #lost(): Promise<never> {
    await this.#parts.link.lost;
    throw new LonghaulError('harness_unavailable', 'the Copilot runtime ended');
  }

  async #open(): Promise<CopilotSession> {
    const { link, home, spec, token, turn } = this.#parts;
    const config = { ...sessionConfig(spec, turn.model), onEvent: (event: CopilotEvent) => this.#receive(event) };
    const session = isKept(home, token.sessionId)
      ? await link.client.resumeSession(token.sessionId, { ...config, continuePendingWork: false })
      : await link.client.createSession({ ...config, sessionId: token.sessionId });
    // A model without its hands would only talk.
    if ((await Promise.race([this.#tools, delay(TOOLS_MS, undefined, { ref: false })])) !== 'connected') {
      throw new LonghaulError('harness_unavailable', 'Copilot got no tools from the platform');
    }
    return session;
  }

  /** Sends the message, unless the history has it; then it tells what came after, and goes on from there. */
  async #begin(session: CopilotSession): Promise<void> {
    const { token, turn, host } = this.#parts;
    const events = await session.getEvents();
    const messages = events.flatMap((event, index) => (event.type === 'user.message' ? [index] : []));
    const isKnown = token.sent?.messageId === turn.messageId && messages.length > token.sent.before;
    if (!isKnown) {
      token.sent = { messageId: turn.messageId, before: messages.length };
      await host.checkpoint({ ...token });
      await this.#send(session, messageOf(turn.content));
      return;
    }
    const ours = events.slice(messages[token.sent?.before ?? 0]);
    for (const event of ours) for (const each of eventsOf(event, this.#begun, this.#retries)) await host.emit(each);
    const end = endOf(ours.slice(ours.findLastIndex((event) => event.type === 'user.message')), token.settled);
    if (end === undefined) await this.#send(session, { prompt: turn.continuation ?? CONTINUE });
    else this.#end(end);
  }

  async #send(session: CopilotSession, message: { prompt: string; attachments?: object[] }): Promise<void> {
    this.#isSent = true;
    await session.send(message);
  }

  #receive(event: CopilotEvent): void {
    if (event.type === 'session.mcp_server_status_changed' && event.data.serverName === OWN_MCP_SERVER) {
      const { status } = event.data;
      if (status !== 'pending') this.#toolsStatus(status);
    }
    // What is told while the session is opened is its history, or about the runtime.
    if (this.#isSent)
      this.#told = this.#told.then(() => this.#tell(event)).catch((error: unknown) => this.#fail(error));
  }

  async #tell(event: CopilotEvent): Promise<void> {
    if (event.type === 'session.error') this.#error = { ...event.data, id: event.id };
    // It got over it.
    else if (event.type === 'assistant.message') this.#error = undefined;
    else if (event.type === 'session.idle') {
      await this.#over();
      return;
    }
    for (const each of eventsOf(event, this.#begun, this.#retries)) await this.#parts.host.emit(each);
  }

  async #over(): Promise<void> {
    const { token, host } = this.#parts;
    if (this.#wanted !== undefined) {
      this.#end({ kind: this.#wanted });
      return;
    }
    if (this.#error !== undefined) {
      token.settled = this.#error.id;
      await host.checkpoint({ ...token });
    }
    this.#end(this.#error === undefined ? { kind: 'completed', stopReason: 'end_turn' } : failureOf(this.#error));
  }

  #stop(session: CopilotSession, wanted: 'cancelled' | 'parked' | 'detached'): void {
    if (this.#wanted !== undefined) return;
    this.#wanted = wanted;
    const timer = setTimeout(() => this.#end(crashOf('Copilot did not abort the turn')), ABORT_MS);
    void this.#ended.finally(() => clearTimeout(timer));
    session.abort().catch((error: unknown) => this.#fail(error));
  }

  #fail(error: unknown): void {
    this.#end(crashOf(error instanceof Error ? error.message : String(error)));
  }
}

/** How the turn ended, when its history says that it did. */
function endOf(events: CopilotEvent[], settled: string | undefined): TurnOutcome | undefined {
  const said = events.filter(({ type }) =>
    ['assistant.message', 'session.error', 'abort', 'tool.execution_complete'].includes(type),
  );
  const last = said.at(-1);
  const hasEnded = events.some(({ type }) => type === 'assistant.turn_end');
  if (last?.type === 'session.error' && last.id !== settled) return failureOf(last.data);
  const isFinal = last?.type === 'assistant.message' && (last.data.toolRequests ?? []).length === 0 && hasEnded;
  return isFinal ? { kind: 'completed', stopReason: 'end_turn' } : undefined;
}
