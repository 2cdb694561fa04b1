import { createParser } from 'eventsource-parser';
import { setTimeout as delay } from 'node:timers/promises';
import { request, type Agent } from 'undici';
import { anyAbort } from '../../../contracts/abort.ts';
import { unlessAborted } from '../../sandbox/abort.ts';
import type { RunningServer } from '../host/servers.ts';
import { authorizationOf } from './api.ts';
import type { OpenEvent } from './wire.ts';

export interface BusListener {
  onEvent(event: OpenEvent): void;
  /** The stream was interrupted: events may have been missed, state has to be read again. */
  onGap(): void;
}

const RECONNECT_MS = 200;
/** The server says something every ten seconds, even when nothing happens. */
const SILENCE_MS = 60_000;
const LINGER_MS = 30_000;

/** The one event stream of a server, shared by all sessions of this worker. */
export class EventBus {
  readonly server: RunningServer;
  readonly #agent: Agent;
  readonly #listeners = new Map<string, Set<BusListener>>();
  readonly #end = new AbortController();
  #connected: Promise<void>;
  #markConnected: () => void = () => undefined;
  #linger: NodeJS.Timeout | undefined;

  constructor(server: RunningServer, agent: Agent) {
    this.server = server;
    this.#agent = agent;
    this.#connected = this.#expectConnection();
    void this.#listen();
  }

  /** Resolves when events are being heard; the listener hears those of its session's directory. */
  async subscribe(directory: string, listener: BusListener, signal: AbortSignal): Promise<() => void> {
    clearTimeout(this.#linger);
    const listeners = this.#listeners.get(directory) ?? new Set();
    this.#listeners.set(directory, listeners.add(listener));
    const leave = (): void => this.#leave(directory, listener);
    try {
      await unlessAborted(signal, this.#connected);
      return leave;
    } catch (error) {
      leave();
      throw error;
    }
  }

  get isClosed(): boolean {
    return this.#end.signal.aborted;
  }

  close(): void {
    clearTimeout(this.#linger);
    this.#end.abort();
  }

  #leave(directory: string, listener: BusListener): void {
    const listeners = this.#listeners.get(directory);
    listeners?.delete(listener);
    if (listeners?.size === 0) this.#listeners.delete(directory);
    if (this.#listeners.size > 0) return;
    this.#linger = setTimeout(() => this.close(), LINGER_MS);
    this.#linger.unref();
  }

  #expectConnection(): Promise<void> {
    return new Promise((resolve) => {
      this.#markConnected = resolve;
    });
  }

  async #listen(): Promise<void> {
    while (!this.#end.signal.aborted) {
      try {
        await this.#readStream();
      } catch {
        // Said below: whoever listens reads the state again.
      }
      if (this.#end.signal.aborted) return;
      this.#connected = this.#expectConnection();
      await delay(RECONNECT_MS, undefined, { ref: false });
    }
  }

  async #readStream(): Promise<void> {
    const silence = new AbortController();
    const signal = anyAbort([this.#end.signal, silence.signal]);
    let timer = setTimeout(() => silence.abort(), SILENCE_MS);
    const parser = createParser({ onEvent: ({ data }) => this.#deliver(data) });
    try {
      const answer = await request(new URL('/global/event', this.server.endpoint), {
        dispatcher: this.#agent,
        signal,
        headers: { authorization: authorizationOf(this.server), accept: 'text/event-stream' },
      });
      const decoder = new TextDecoder();
      let isFirst = true;
      for await (const chunk of answer.body as AsyncIterable<Buffer>) {
        clearTimeout(timer);
        timer = setTimeout(() => silence.abort(), SILENCE_MS);
        if (isFirst) this.#greet();
        isFirst = false;
        parser.feed(decoder.decode(chunk, { stream: true }));
      }
    } finally {
      clearTimeout(timer);
    }
  }

  /** Its first word says that it hears: what came before, if anything, was missed. */
  #greet(): void {
    this.#markConnected();
    for (const listener of this.#everybody()) listener.onGap();
  }

  #deliver(data: string): void {
    let frame: { directory?: string; payload?: OpenEvent };
    try {
      frame = JSON.parse(data) as typeof frame;
    } catch {
      return;
    }
    const { directory, payload } = frame;
    if (directory === undefined || payload === undefined) return;
    for (const listener of this.#listeners.get(directory) ?? []) listener.onEvent(payload);
  }

  #everybody(): BusListener[] {
    return [...this.#listeners.values()].flatMap((listeners) => [...listeners]);
  }
}
