import { LonghaulError } from '../../../contracts/error-codes.ts';
import type { ServerMessage } from './protocol.ts';

/** Frames of text to and from an app-server, whatever carries them. */
export interface Wire {
  send(text: string): void;
  /** Called once each; `onClose` at once when it is closed already. */
  listen(onText: (text: string) => void, onClose: () => void): void;
  close(): void;
}

/** The server answered a request with an error. */
export class CodexRequestError extends Error {
  readonly code: number;
  constructor(code: number, message: string) {
    super(message);
    this.name = 'CodexRequestError';
    this.code = code;
  }
}

interface Waiting {
  resolve: (result: unknown) => void;
  reject: (error: Error) => void;
  timer: NodeJS.Timeout;
}

interface Incoming {
  id?: number | string;
  method?: string;
  params?: unknown;
  result?: unknown;
  error?: { code?: number; message?: string };
}

const REQUEST_TIMEOUT_MS = 60_000;
/** Messages that nobody reads yet; a turn that runs unseen for longer is read from the thread's history. */
const KEPT_MESSAGES = 2_000;

/** JSON-RPC without the `jsonrpc` field, as the app-server speaks it. One connection serves one session. */
export class CodexConnection {
  readonly #wire: Wire;
  readonly #waiting = new Map<number, Waiting>();
  readonly #closeListeners = new Set<() => void>();
  #kept: ServerMessage[] = [];
  #reader: ((message: ServerMessage) => void) | undefined;
  #nextId = 1;
  #isClosed = false;
  #home = '';

  private constructor(wire: Wire) {
    this.#wire = wire;
    wire.listen(
      (text) => this.#receive(text),
      () => this.#closed(),
    );
  }

  static async open(wire: Wire): Promise<CodexConnection> {
    const connection = new CodexConnection(wire);
    try {
      const { codexHome } = await connection.request<{ codexHome: string }>('initialize', {
        clientInfo: { name: 'longhaul', title: null, version: '1' },
        capabilities: { experimentalApi: true, requestAttestation: false },
      });
      connection.#home = codexHome;
      connection.#wire.send(JSON.stringify({ method: 'initialized' }));
      return connection;
    } catch (error) {
      connection.close();
      throw error;
    }
  }

  /** The server's `CODEX_HOME`. */
  get home(): string {
    return this.#home;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Rejects with `CodexRequestError`, or `harness_unavailable` when there is no answer. */
  async request<T>(method: string, params: object): Promise<T> {
    if (this.#isClosed) throw gone(method);
    const id = this.#nextId;
    this.#nextId += 1;
    return await new Promise<T>((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(id);
        reject(new LonghaulError('harness_unavailable', `codex did not answer ${method}`));
      }, REQUEST_TIMEOUT_MS);
      this.#waiting.set(id, { resolve: (result) => resolve(result as T), reject, timer });
      this.#wire.send(JSON.stringify({ method, id, params }));
    });
  }

  /** Answers a request of the server. */
  answer(id: number | string, result: object): void {
    if (!this.#isClosed) this.#wire.send(JSON.stringify({ id, result }));
  }

  /** Answers a request of the server that nobody here can answer. */
  refuse(id: number | string): void {
    if (!this.#isClosed)
      this.#wire.send(JSON.stringify({ id, error: { code: -32_601, message: 'not answered here' } }));
  }

  /** Messages from now on and those that came since the connection was opened. One reader at a time. */
  read(reader: (message: ServerMessage) => void): void {
    this.#reader = reader;
    const kept = this.#kept;
    this.#kept = [];
    for (const message of kept) reader(message);
  }

  onClose(listener: () => void): void {
    if (this.#isClosed) listener();
    else this.#closeListeners.add(listener);
  }

  close(): void {
    this.#wire.close();
    this.#closed();
  }

  #receive(text: string): void {
    let message: Incoming;
    try {
      message = JSON.parse(text) as Incoming;
    } catch {
      this.close();
      return;
    }
    if (message.method === undefined) this.#settle(message);
    else if (this.#reader !== undefined) this.#reader(message as ServerMessage);
    else if (!message.method.endsWith('elta')) {
      if (this.#kept.length >= KEPT_MESSAGES) this.#kept.shift();
      this.#kept.push(message as ServerMessage);
    }
  }

  #settle({ id, result, error }: Incoming): void {
    const waiting = typeof id === 'number' ? this.#waiting.get(id) : undefined;
    if (waiting === undefined || typeof id !== 'number') return;
    this.#waiting.delete(id);
    clearTimeout(waiting.timer);
    if (error === undefined) waiting.resolve(result);
    else waiting.reject(new CodexRequestError(error.code ?? 0, error.message ?? 'no message'));
  }

  #closed(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    for (const { reject, timer } of this.#waiting.values()) {
      clearTimeout(timer);
      reject(gone('the request'));
    }
    this.#waiting.clear();
    for (const listener of this.#closeListeners) listener();
    this.#closeListeners.clear();
  }
}

function gone(what: string): LonghaulError {
  return new LonghaulError('harness_unavailable', `the connection to codex closed before it answered ${what}`);
}
