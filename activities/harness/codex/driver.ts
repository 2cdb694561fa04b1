import { LonghaulError } from '../../../contracts/error-codes.ts';
import type {
  HarnessCapabilities,
  HarnessDriver,
  HarnessHandle,
  HarnessSpec,
  ResumeToken,
  TurnHost,
  TurnOutcome,
  TurnSpec,
} from '../port.ts';
import type { HarnessHost } from '../host/servers.ts';
import { requireHarness } from '../installs.ts';
import { CODEX_CAPABILITIES } from './capabilities.ts';
import { CodexConnection, type Wire } from './connection.ts';
import { crashOf } from './faults.ts';
import { readRollout, rolloutName, writeRollout } from './rollout.ts';
import { connectShared, isServerRunning } from './server.ts';
import { digestOf, endThread, refused, resumeThread, startThread, threadParams, type OpenedThread } from './thread.ts';
import { CodexTurnRun } from './turn.ts';

interface CodexDriverParts {
  host: HarnessHost;
  installDir: string;
}

interface CodexHandle extends HarnessHandle {
  spec: HarnessSpec;
}

interface Token extends ResumeToken {
  threadId: string;
  /** File of the thread below the server's home. */
  rollout: string | null;
  /** Codex's turn whose failure was told. */
  settledTurn?: string;
}

/** An open connection nobody uses is closed after this. */
const IDLE_CONNECTION_MS = 60_000;

/** `codex app-server`: one process for many sessions; a turn goes on when the worker dies. */
export class CodexDriver implements HarnessDriver {
  readonly name = 'codex';
  readonly #parts: CodexDriverParts;
  readonly #connections = new Map<string, { connection: CodexConnection; timer: NodeJS.Timeout }>();
  /** By thread: what it was loaded with. */
  readonly #loaded = new Map<string, string>();

  constructor(parts: CodexDriverParts) {
    this.#parts = parts;
  }

  capabilities(): Promise<HarnessCapabilities> {
    return Promise.resolve(CODEX_CAPABILITIES);
  }

  async open(spec: HarnessSpec, token: ResumeToken | null, signal: AbortSignal): Promise<HarnessHandle> {
    const connection = await this.#connect(spec, signal);
    try {
      const known = readToken(token);
      const thread = await this.#attach(connection, spec, known);
      this.#keep(spec.sessionId, connection);
      const handle: CodexHandle = {
        spec,
        harnessSessionId: thread.threadId,
        resumeToken: tokenOf(connection, thread, known),
        isAttachedToRunning: thread.isRunning,
      };
      return handle;
    } catch (error) {
      connection.close();
      throw refused(error);
    }
  }

  async runTurn(handle: HarnessHandle, turn: TurnSpec, host: TurnHost, signal: AbortSignal): Promise<TurnOutcome> {
    const { spec } = handle as CodexHandle;
    const token = readToken(handle.resumeToken);
    if (token === undefined) throw new LonghaulError('harness_invalid', 'the session was not opened');
    let connection: CodexConnection | undefined;
    try {
      connection = this.#take(spec.sessionId) ?? (await this.#reconnect(spec, token, signal));
      const { settledTurn, threadId } = token;
      const run = new CodexTurnRun({ connection, threadId, spec, turn, host, settledTurn });
      const outcome = await run.run(signal);
      if (outcome.kind === 'failed' && outcome.fault !== 'harness_crash' && run.turnId !== undefined) {
        token.settledTurn = run.turnId;
        await host.checkpoint({ ...token });
      }
      return outcome;
    } catch (error) {
      return crashOf(error instanceof Error ? error.message : String(error));
    } finally {
      connection?.close();
    }
  }

  async exportState(handle: HarnessHandle, signal: AbortSignal): Promise<Uint8Array | null> {
    const token = readToken(handle.resumeToken);
    if (token?.rollout === undefined || token.rollout === null) return null;
    return await this.#withHome((handle as CodexHandle).spec, signal, (home) => readRollout(home, token.rollout ?? ''));
  }

  async importState(spec: HarnessSpec, token: ResumeToken, state: Uint8Array, signal: AbortSignal): Promise<void> {
    const name = readToken(token)?.rollout;
    if (name === undefined || name === null) {
      throw new LonghaulError('harness_invalid', 'names no session of codex', { field: 'token' });
    }
    await this.#withHome(spec, signal, (home) => writeRollout(home, name, state));
    // One that is loaded would go on from its memory.
    this.#loaded.delete(readToken(token)?.threadId ?? '');
  }

  async close(spec: HarnessSpec, token: ResumeToken | null, forget: boolean, signal: AbortSignal): Promise<void> {
    this.#take(spec.sessionId)?.close();
    const known = readToken(token);
    if (known === undefined) return;
    this.#loaded.delete(known.threadId);
    if (!forget && !isServerRunning(this.#parts.host)) return;
    const connection = await this.#connect(spec, signal);
    try {
      await endThread(connection, known.threadId, forget);
    } finally {
      connection.close();
    }
  }

  async #attach(connection: CodexConnection, spec: HarnessSpec, token: Token | undefined): Promise<OpenedThread> {
    const params = threadParams(spec);
    const digest = digestOf(params);
    const found =
      token === undefined
        ? undefined
        : await resumeThread(connection, token.threadId, params, this.#loaded.get(token.threadId) === digest);
    if (found === undefined && token !== undefined) {
      throw new LonghaulError('harness_invalid', 'codex has no history of this session here');
    }
    const thread = found ?? (await startThread(connection, spec, params));
    // One that runs has what it was loaded with.
    if (!thread.isRunning) this.#loaded.set(thread.threadId, digest);
    return thread;
  }

  async #reconnect(spec: HarnessSpec, token: Token, signal: AbortSignal): Promise<CodexConnection> {
    const connection = await this.#connect(spec, signal);
    try {
      const { threadId } = await this.#attach(connection, spec, token);
      if (threadId !== token.threadId) throw new LonghaulError('harness_unavailable', 'codex has lost the session');
      return connection;
    } catch (error) {
      connection.close();
      throw refused(error);
    }
  }

  async #wire(spec: HarnessSpec, signal: AbortSignal): Promise<Wire> {
    if (spec.placement !== 'inline' || spec.hands !== 'platform') {
      throw new LonghaulError('harness_invalid', 'codex runs inline, with the hands of the platform');
    }
    return await connectShared(this.#parts.host, requireHarness('codex', this.#parts.installDir), signal);
  }

  async #connect(spec: HarnessSpec, signal: AbortSignal): Promise<CodexConnection> {
    return await CodexConnection.open(await this.#wire(spec, signal));
  }

  async #withHome<T>(spec: HarnessSpec, signal: AbortSignal, use: (home: string) => Promise<T>): Promise<T> {
    const connection = await this.#connect(spec, signal);
    connection.close();
    return await use(connection.home);
  }

  #keep(sessionId: string, connection: CodexConnection): void {
    this.#take(sessionId)?.close();
    const timer = setTimeout(() => this.#take(sessionId)?.close(), IDLE_CONNECTION_MS);
    timer.unref();
    this.#connections.set(sessionId, { connection, timer });
  }

  #take(sessionId: string): CodexConnection | undefined {
    const kept = this.#connections.get(sessionId);
    if (kept === undefined) return undefined;
    clearTimeout(kept.timer);
    this.#connections.delete(sessionId);
    return kept.connection.isClosed ? undefined : kept.connection;
  }
}

function readToken(token: ResumeToken | null): Token | undefined {
  return typeof token?.['threadId'] === 'string' ? (token as Token) : undefined;
}

function tokenOf(connection: CodexConnection, thread: OpenedThread, known: Token | undefined): Token {
  const { threadId, rolloutPath } = thread;
  const rollout = rolloutPath === null ? null : rolloutName(connection.home, rolloutPath);
  return { ...(known?.threadId === threadId ? known : {}), threadId, rollout };
}
