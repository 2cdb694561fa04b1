import { randomUUID } from 'node:crypto';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import type { ExecPoll, SandboxProvider, SandboxRef } from '../../sandbox/port.ts';
import { LineSplitter, type PlacedFile } from './stdio.ts';
import type { StdioEnd, StdioLine, StdioPlace, StdioProcess, StdioRef, StdioSpec } from './stdio.ts';
import { tooLarge } from './stdio-local.ts';

/** A program is started anew for a turn after this long at the latest. */
const LIFE_MS = 24 * 60 * 60_000;
const POLL_MS = 20_000;
const STDERR_CHARS = 4_000;
const EXECS_LOOKED_AT = 1_000;
/** A provider that cannot be reached for so many askings in a row is gone. */
const TRIES = 30;
const TRY_AGAIN_MS = 1_000;

/** A sandbox that is there, and awake. */
export interface SandboxTarget {
  provider: SandboxProvider;
  ref: SandboxRef;
}

/** Programs inside a sandbox, as commands of its journal: they outlive the worker, which goes on reading where it was. */
export class SandboxStdio implements StdioPlace {
  readonly survivesWorker = true;
  readonly #target: SandboxTarget;

  constructor(target: SandboxTarget) {
    this.#target = target;
  }

  async start(spec: StdioSpec, signal: AbortSignal): Promise<StdioProcess> {
    const { provider, ref } = this.#target;
    const execId = `${prefixOf(spec.marker)}${randomUUID().slice(0, 8)}`;
    const { argv, cwd, env } = spec;
    await provider.execStart(ref, { execId, argv, cwd, env, timeoutMs: LIFE_MS, stdin: 'open' }, signal);
    return new SandboxProcess(this.#target, execId, { out: 0, in: 0 });
  }

  async attach(found: StdioRef, from: number, signal: AbortSignal): Promise<StdioProcess | undefined> {
    if (found.kind !== 'sandbox') return undefined;
    const { provider, ref } = this.#target;
    const { execId } = found;
    try {
      const { status } = await provider.execPoll(ref, execId, { out: from, err: 0 }, 0, signal);
      if (status.state !== 'running') return undefined;
      // Nothing is fed; the answer says how far the worker before had come.
      const fed = await provider.execInput(ref, execId, 0, new Uint8Array(), signal);
      const process = new SandboxProcess(this.#target, execId, { out: from, in: fed });
      // A worker that died in the middle of a line leaves half of one.
      await process.write('');
      return process;
    } catch (error) {
      if (isGone(error)) return undefined;
      throw error;
    }
  }

  async end(marker: string, signal: AbortSignal): Promise<void> {
    const { provider, ref } = this.#target;
    try {
      for (const { execId, status } of await provider.execList(ref, EXECS_LOOKED_AT, signal)) {
        if (status.state !== 'running' || !execId.startsWith(prefixOf(marker))) continue;
        await provider.execKill(ref, execId, signal);
      }
    } catch (error) {
      if (!isGone(error)) throw error;
    }
  }

  async writeFile(file: string, content: Uint8Array, signal: AbortSignal): Promise<void> {
    await this.#target.provider.writeFile(this.#target.ref, file, content, signal);
  }

  async readFolder(folder: string, maxBytes: number, signal: AbortSignal): Promise<PlacedFile[]> {
    const { provider, ref } = this.#target;
    const files: PlacedFile[] = [];
    let left = maxBytes;
    const read = async (below: string): Promise<void> => {
      for (const entry of await provider.listDir(ref, path.posix.join(folder, below), signal)) {
        const name = path.posix.join(below, path.posix.basename(entry.path));
        if (entry.type === 'directory') await read(name);
        if (entry.type !== 'file') continue;
        left -= entry.sizeBytes;
        if (left < 0) throw tooLarge(folder, maxBytes);
        files.push({ path: name, content: await provider.readFile(ref, entry.path, maxBytes, signal) });
      }
    };
    if ((await provider.stat(ref, folder, signal)) !== null) await read('');
    return files;
  }

  async remove(target: string, signal: AbortSignal): Promise<void> {
    await this.#target.provider.remove(this.#target.ref, target, signal);
  }
}

function prefixOf(marker: string): string {
  return `harness.${marker}.`;
}

function isGone(error: unknown): boolean {
  return error instanceof LonghaulError && (error.code === 'sandbox_lost' || error.code === 'sandbox_not_found');
}

class SandboxProcess implements StdioProcess {
  readonly ref: StdioRef;
  readonly ended: Promise<StdioEnd>;
  readonly #target: SandboxTarget;
  readonly #execId: string;
  readonly #released = new AbortController();
  readonly #from: { out: number; err: number };
  #end: (end: StdioEnd) => void = () => undefined;
  #fed: number;
  #writing: Promise<unknown> = Promise.resolve();
  #stderr = '';

  constructor(target: SandboxTarget, execId: string, at: { out: number; in: number }) {
    this.#target = target;
    this.#execId = execId;
    this.#from = { out: at.out, err: 0 };
    this.#fed = at.in;
    this.ref = { kind: 'sandbox', execId };
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
  }

  async *lines(): AsyncGenerator<StdioLine> {
    const splitter = new LineSplitter(this.#from.out);
    const from = { ...this.#from };
    const { signal } = this.#released;
    while (!signal.aborted) {
      const poll = await this.#poll(from);
      if (poll === undefined) return;
      from.out = poll.next.out;
      from.err = poll.next.err;
      this.#stderr = (this.#stderr + Buffer.from(poll.stderr).toString('utf8')).slice(-STDERR_CHARS);
      yield* splitter.push(Buffer.from(poll.stdout));
      if (poll.status.state === 'running' || poll.stdout.length > 0) continue;
      this.#end({ reason: `${describe(poll)}${this.#stderr === '' ? '' : `: ${this.#stderr.trim()}`}` });
      return;
    }
  }

  async write(line: string): Promise<void> {
    const data = Buffer.from(`${line}\n`);
    const { provider, ref } = this.#target;
    const feed = async (): Promise<void> => {
      const offset = this.#fed;
      this.#fed = await this.#again((signal) => provider.execInput(ref, this.#execId, offset, data, signal));
    };
    // One after the other: each begins where the one before ended.
    const fed = this.#writing.then(feed);
    this.#writing = fed.catch(() => undefined);
    await fed;
  }

  release(): void {
    this.#released.abort();
  }

  /** Undefined when it was let go of, or when nobody can say how it ended. */
  async #poll(from: { out: number; err: number }): Promise<ExecPoll | undefined> {
    const { provider, ref } = this.#target;
    try {
      return await this.#again((signal) => provider.execPoll(ref, this.#execId, from, POLL_MS, signal));
    } catch (error) {
      if (!this.#released.signal.aborted) this.#end({ reason: (error as Error).message });
      return undefined;
    }
  }

  async #again<T>(ask: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const { signal } = this.#released;
    for (let tries = 1; ; tries += 1) {
      try {
        return await ask(signal);
      } catch (error) {
        const isOver = !(error instanceof LonghaulError) || !error.retryable || tries >= TRIES;
        if (signal.aborted || isOver) throw error;
      }
      await delay(TRY_AGAIN_MS, undefined, { signal });
    }
  }
}

function describe({ status }: ExecPoll): string {
  switch (status.state) {
    case 'exited':
      return status.signal === null ? `ended with exit code ${status.exitCode}` : `ended with ${status.signal}`;
    case 'killed':
      return `killed: ${status.reason}`;
    case 'lost':
    case 'absent':
    case 'running':
      return 'ended with its sandbox';
  }
}
