import type { Daytona, Sandbox } from '@daytonaio/sdk';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import { unlessAborted } from '../abort.ts';
import type { SandboxRef } from '../port.ts';
import { normalised, statusOf } from './errors.ts';
import { loadDaytona } from './load.ts';
import { requireName } from './spec.ts';
import { phaseOf } from './state.ts';

export interface DaytonaAccount {
  apiKey: string;
  /** Absent: the vendor's cloud. */
  apiUrl?: string;
  /** Region; absent: the organisation's. */
  target?: string;
}

/** Of one request; the SDK's own default is a day. */
const REQUEST_TIMEOUT_MS = 60_000;
/** Sandboxes whose address is remembered; a forgotten one costs one request. */
const KNOWN_SANDBOXES = 500;

/** The SDK behind the port's manners: aborts, normalised errors, and the sandbox's state when a command could not run. */
export class DaytonaClient {
  private readonly account: DaytonaAccount;
  private connection: Promise<Daytona> | undefined;
  private readonly known = new Map<string, Sandbox>();

  constructor(account: DaytonaAccount) {
    this.account = account;
  }

  /** One request, or a few that belong together. */
  async ask<T>(what: string, signal: AbortSignal, work: (daytona: Daytona) => Promise<T>): Promise<T> {
    try {
      const daytona = await this.connect();
      return await unlessAborted(signal, work(daytona));
    } catch (error) {
      throw normalised(error, `daytona: ${what}`, this.account.apiKey);
    }
  }

  private connect(): Promise<Daytona> {
    this.connection ??= this.construct().catch((error: unknown) => {
      this.connection = undefined;
      throw error;
    });
    return this.connection;
  }

  private async construct(): Promise<Daytona> {
    const sdk = await loadDaytona();
    // Explicitly all of it: the SDK would else look into dotenv files of the working directory.
    const apiUrl = this.account.apiUrl ?? 'https://app.daytona.io/api';
    return new sdk.Daytona({
      apiKey: this.account.apiKey,
      apiUrl,
      ...(this.account.target === undefined ? {} : { target: this.account.target }),
      requestTimeoutMs: REQUEST_TIMEOUT_MS,
      // Its stream of events would hold a socket open per worker, for states that are asked for where they matter.
      useDeprecatedPolling: true,
    });
  }

  /** As it is now; null when it is gone. */
  async find(name: string, signal: AbortSignal): Promise<Sandbox | null> {
    const found = await this.ask('look for the sandbox', signal, async (daytona) => {
      try {
        return await daytona.get(name);
      } catch (error) {
        if (statusOf(error) === 404) return null;
        throw error;
      }
    });
    const isThere = found !== null && phaseOf(found.state) !== 'gone';
    if (isThere) this.remember(found);
    else this.known.delete(name);
    return isThere ? found : null;
  }

  async require(ref: SandboxRef, signal: AbortSignal): Promise<Sandbox> {
    const found = await this.find(requireName(ref.id), signal);
    if (found === null) throw notFound(ref);
    return found;
  }

  remember(sandbox: Sandbox): void {
    this.known.delete(sandbox.name);
    this.known.set(sandbox.name, sandbox);
    const [oldest] = this.known.keys();
    if (this.known.size > KNOWN_SANDBOXES && oldest !== undefined) this.known.delete(oldest);
  }

  forget(name: string): void {
    this.known.delete(name);
  }

  /** Work of the daemon inside. When it fails, the sandbox's state tells why: an answer from a stopped one tells little. */
  async within<T>(
    ref: SandboxRef,
    what: string,
    signal: AbortSignal,
    work: (sandbox: Sandbox) => Promise<T>,
  ): Promise<T> {
    const sandbox = this.known.get(requireName(ref.id)) ?? (await this.require(ref, signal));
    try {
      return await this.ask(what, signal, () => work(sandbox));
    } catch (error) {
      if (signal.aborted || !isDoubtful(error)) throw error;
      const now = await this.find(ref.id, signal);
      if (now === null) throw notFound(ref);
      if (phaseOf(now.state) !== 'running') {
        throw new LonghaulError('sandbox_lost', `the sandbox is not running: ${now.state}`);
      }
      if (error instanceof LonghaulError && error.code !== 'sandbox_not_found') throw error;
      throw new LonghaulError('sandbox_unavailable', 'the sandbox was made anew; ask again', { cause: error });
    }
  }
}

/** Whether the sandbox's end may have caused it. */
function isDoubtful(error: unknown): boolean {
  if (!(error instanceof LonghaulError)) return false;
  switch (error.code) {
    case 'sandbox_auth':
    case 'sandbox_busy':
    case 'sandbox_quota':
    case 'sandbox_unsupported':
      return false;
    default:
      return error.field === undefined;
  }
}

function notFound(ref: SandboxRef): LonghaulError {
  return new LonghaulError('sandbox_not_found', `sandbox ${ref.id} does not exist`);
}
