import type { ChildProcess } from 'node:child_process';
import { setTimeout as delay } from 'node:timers/promises';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { messageOf } from '../output.ts';
import type { LogFile } from './logs.ts';
import { endProcess, identify, type ProcessIdentity } from './processes.ts';

const FIRST_DELAY_MS = 100;
const LONGEST_DELAY_MS = 5_000;
/** A process that lived this long was well: its next restart starts from the first delay again. */
const HEALTHY_MS = 20_000;
/** So many ends in a row are a crash loop and are said so. */
const LOOP_ENDS = 5;

export interface SupervisedOptions {
  role: string;
  log: LogFile;
  spawn: () => ChildProcess;
  /** Resolves when the process can be used; `check` throws as soon as it has ended. */
  waitReady: (child: ChildProcess, check: () => void) => Promise<void>;
  /** Runs before each spawn. */
  prepare?: () => Promise<void>;
  stopSignal: NodeJS.Signals;
  graceMs: number;
  onSpawn: (identity: ProcessIdentity) => void;
  say: (line: string) => void;
}

/** One child process that is started again whenever it ends, until it is stopped. */
export class SupervisedProcess {
  readonly #options: SupervisedOptions;
  #current: { child: ChildProcess; identity: ProcessIdentity } | undefined;
  #stopping = false;
  #endsInARow = 0;
  readonly #abort = new AbortController();

  constructor(options: SupervisedOptions) {
    this.#options = options;
  }

  /** Starts it and waits until it is ready; throws, with the end of its log, when it ends before. */
  async start(): Promise<void> {
    const child = await this.#launch();
    try {
      await this.#options.waitReady(child, () => this.#checkLives(child));
    } catch (error) {
      const { role, log } = this.#options;
      throw new LonghaulError(
        'setup_required',
        `${role} did not start: ${messageOf(error)}\n--- end of ${log.file}\n${log.tail(15)}`,
        { cause: error },
      );
    }
    this.#watch(child);
  }

  /** Ends it for good: the stop signal, then SIGKILL after the grace time. */
  async stop(): Promise<void> {
    this.#stopping = true;
    this.#abort.abort();
    if (this.#current === undefined) return;
    await endProcess(this.#current.identity, this.#options.stopSignal, this.#options.graceMs);
  }

  /** Ends it at once, without grace. */
  kill(): void {
    this.#stopping = true;
    this.#abort.abort();
    this.#current?.child.kill('SIGKILL');
  }

  async #launch(): Promise<ChildProcess> {
    await this.#options.prepare?.();
    if (this.#stopping) throw new LonghaulError('internal', `${this.#options.role} is being stopped`);
    const child = this.#options.spawn();
    // Without a listener a failed spawn would end the supervisor; waitReady sees it through its check.
    child.on('error', () => undefined);
    const identity = child.pid === undefined ? null : identify(child.pid);
    if (identity !== null) {
      this.#current = { child, identity };
      this.#options.onSpawn(identity);
    }
    return child;
  }

  #checkLives(child: ChildProcess): void {
    if (child.pid === undefined) throw new LonghaulError('internal', 'its program could not be started');
    if (child.exitCode !== null) throw new LonghaulError('internal', `it ended with exit code ${child.exitCode}`);
    if (child.signalCode !== null) throw new LonghaulError('internal', `it was ended by ${child.signalCode}`);
  }

  #watch(child: ChildProcess): void {
    const since = Date.now();
    const onEnd = (): void => {
      if (this.#stopping) return;
      if (Date.now() - since >= HEALTHY_MS) this.#endsInARow = 0;
      void this.#restart(child.signalCode ?? `exit code ${child.exitCode}`);
    };
    if (child.exitCode !== null || child.signalCode !== null) onEnd();
    else child.once('exit', onEnd);
  }

  async #restart(how: string): Promise<void> {
    const { role, say, log } = this.#options;
    let reason = `ended (${how})`;
    for (;;) {
      this.#endsInARow += 1;
      const pauseMs = Math.min(FIRST_DELAY_MS * 2 ** (this.#endsInARow - 1), LONGEST_DELAY_MS);
      say(`${role} ${reason}; starting it again in ${pauseMs} ms`);
      if (this.#endsInARow === LOOP_ENDS) {
        say(`${role} keeps ending: ${LOOP_ENDS} times in a row. See ${log.file}; its last lines:\n${log.tail(10)}`);
      }
      try {
        await delay(pauseMs, undefined, { signal: this.#abort.signal });
        const startedMs = Date.now();
        const child = await this.#launch();
        await this.#options.waitReady(child, () => this.#checkLives(child));
        say(`${role} is back after ${Date.now() - startedMs} ms`);
        this.#watch(child);
        return;
      } catch (error) {
        if (this.#stopping) return;
        await this.#endHalfStarted();
        reason = `did not come back: ${messageOf(error)}`;
      }
    }
  }

  /** A process that lives but never became ready would hold the port of its successor. */
  async #endHalfStarted(): Promise<void> {
    if (this.#current !== undefined) await endProcess(this.#current.identity, 'SIGKILL', 0);
  }
}
