import {
  client,
  methods,
  type AnyMessage,
  type ClientConnection,
  type RequestPermissionRequest,
  type RequestPermissionResponse,
  type SessionUpdate,
} from '@agentclientprotocol/sdk';
import type { StdioEnd, StdioProcess } from '../host/stdio.ts';

/** Whoever listens to a connection now. */
export interface ConnectionListener {
  /** The next message is not read before this resolves: order and pace are the recorder's. */
  update(update: SessionUpdate): Promise<void>;
  permission(requestId: string, request: RequestPermissionRequest): Promise<RequestPermissionResponse>;
  /** The agent has the answer to one of its requests. */
  answered(requestId: string): Promise<void>;
}

/** An answer to a request, with fields that newer agents add. */
export type Answer = Record<string, unknown>;

/** The agent's process has ended, or nobody can hear it any more. */
export class AgentEnded extends Error {
  override readonly name = 'AgentEnded';
}

const PROMPT: string = methods.agent.session.prompt;
const UPDATE: string = methods.client.session.update;

/**
 * ACP over a process's lines, with the official library. Three things are ours: ids of requests go on over workers, what
 * was answered to an earlier worker is passed over, and updates are taken one by one in their order.
 */
export class AcpConnection {
  readonly process: StdioProcess;
  /** Resolves when the process has ended. */
  readonly ended: Promise<StdioEnd>;
  #readTo: number;
  #nextId: number;
  readonly #connection: ClientConnection;
  /** Ids of the library's requests by the ids they have on the wire. */
  readonly #ids = new Map<number, number | string | null>();
  /** The request of an earlier worker which the next prompt stands for. */
  #adopted: number | undefined;
  #isAlive = true;
  #listener: ConnectionListener | undefined;
  #end: (end: StdioEnd) => void = () => undefined;

  constructor(process: StdioProcess, at: { nextId: number; readTo: number }) {
    this.process = process;
    this.#nextId = at.nextId;
    this.#readTo = at.readTo;
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
    this.#connection = this.#app().connect({
      writable: new WritableStream<AnyMessage>({ write: (message) => this.#send(message) }),
      readable: ReadableStream.from(this.#received()),
    });
    // The library rejects what waits; who waits hears it there.
    this.#connection.closed.catch(() => undefined);
  }

  get isAlive(): boolean {
    return this.#isAlive;
  }

  get nextId(): number {
    return this.#nextId;
  }

  get readTo(): number {
    return this.#readTo;
  }

  listen(listener: ConnectionListener | undefined): void {
    this.#listener = listener;
  }

  /** Asks the agent. Throws `AgentEnded` when it ends first, or the library's `RequestError`. */
  async request(method: string, params: object): Promise<Answer> {
    return this.#unlessEnded(this.#connection.agent.request<Answer, object>(method, params));
  }

  /** Sends a prompt, or stands for one that an earlier worker sent. */
  prompt(params: object, adopted?: number): Promise<Answer> {
    this.#adopted = adopted;
    return this.request(PROMPT, params);
  }

  async notify(method: string, params: object): Promise<void> {
    await this.#unlessEnded(this.#connection.agent.notify(method, params));
  }

  /** Stops listening; the process goes on where its place allows that. */
  release(): void {
    this.#isAlive = false;
    this.process.release();
    this.#connection.close();
  }

  #app(): ReturnType<typeof client> {
    return client({ name: 'longhaul' }).onRequest(
      methods.client.session.requestPermission,
      ({ params, requestId }) =>
        this.#listener?.permission(String(requestId), params) ?? { outcome: { outcome: 'cancelled' } },
    );
  }

  async #unlessEnded<T>(wait: Promise<T>): Promise<T> {
    try {
      return await wait;
    } catch (error) {
      if (this.#isAlive) throw error;
      const { reason } = await this.ended;
      throw new AgentEnded(reason, { cause: error });
    }
  }

  async #send(message: AnyMessage): Promise<void> {
    const sent = this.#renumbered(message);
    if (sent === undefined) return;
    await this.process.write(JSON.stringify(sent));
    if (!('method' in sent)) await this.#listener?.answered(String(sent.id));
  }

  /** The library counts from 0 for each connection; the agent's process may have seen those already. */
  #renumbered(message: AnyMessage): AnyMessage | undefined {
    if (!('method' in message) || !('id' in message)) return message;
    const adopted = message.method === PROMPT ? this.#adopted : undefined;
    this.#adopted = undefined;
    const id = adopted ?? this.#nextId;
    this.#ids.set(id, message.id);
    if (adopted !== undefined) return undefined;
    this.#nextId += 1;
    return { ...message, id };
  }

  async *#received(): AsyncGenerator<AnyMessage> {
    let reason = 'its output ended';
    try {
      for await (const { text, next } of this.process.lines()) {
        const message = await this.#taken(text);
        this.#readTo = next;
        if (message !== undefined) yield message;
      }
      reason = await this.#endOf();
    } catch (error) {
      reason = (error as Error).message;
    } finally {
      this.#isAlive = false;
      this.#end({ reason });
    }
  }

  async #endOf(): Promise<string> {
    return this.#isAlive ? (await this.process.ended).reason : 'let go of';
  }

  /** What the library is to see of a line. */
  async #taken(line: string): Promise<AnyMessage | undefined> {
    const message = parse(line);
    if (message === undefined) return undefined;
    if (message['method'] === UPDATE) {
      const { update } = (message['params'] ?? {}) as { update?: SessionUpdate };
      if (update !== undefined) await this.#listener?.update(update);
      return undefined;
    }
    if (typeof message['method'] === 'string') return message as unknown as AnyMessage;
    const id = Number(message['id']);
    const own = this.#ids.get(id);
    this.#ids.delete(id);
    // An answer to somebody who is gone.
    if (own === undefined) return undefined;
    return { ...message, id: own } as unknown as AnyMessage;
  }
}

/** Agents print banners and warnings between messages: what is no message is passed over. */
function parse(line: string): Record<string, unknown> | undefined {
  try {
    const value = JSON.parse(line) as unknown;
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : undefined;
  } catch {
    return undefined;
  }
}
