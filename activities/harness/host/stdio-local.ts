import { spawn, type ChildProcess } from 'node:child_process';
import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import { isAlive, killProcess, startTimeOf, type ProcessIdentity } from '../../sandbox/local/host.ts';
import { LineSplitter, type PlacedFile } from './stdio.ts';
import type { StdioEnd, StdioLine, StdioPlace, StdioProcess, StdioRef, StdioSpec } from './stdio.ts';

/** Names the session a process works for, in its environment: its children have it too. */
const MARKER_VARIABLE = 'LONGHAUL_HARNESS_OF';
const STDERR_CHARS = 4_000;
const KILL_LOOK_MS = 20;

/** Programs beside the worker. They end with it: their input does. */
export class LocalStdio implements StdioPlace {
  readonly survivesWorker = false;

  start(spec: StdioSpec): Promise<StdioProcess> {
    const [command = '', ...args] = spec.argv;
    const child = spawn(command, args, {
      cwd: spec.cwd,
      env: { ...spec.env, [MARKER_VARIABLE]: spec.marker },
      // A process group of its own: a signal to the worker's is not meant for it.
      detached: true,
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    return new Promise((resolve, reject) => {
      child.once('error', (cause) =>
        reject(new LonghaulError('harness_unavailable', `${path.basename(command)} could not be started`, { cause })),
      );
      child.once('spawn', () => {
        const pid = child.pid ?? 0;
        const startTime = startTimeOf(pid) ?? '';
        resolve(new LocalProcess(child, { kind: 'local', identity: { pid, startTime }, marker: spec.marker }));
      });
    });
  }

  /** Its pipes ended with the worker that had them. */
  attach(_ref: StdioRef): Promise<undefined> {
    return Promise.resolve(undefined);
  }

  async end(marker: string, signal: AbortSignal): Promise<void> {
    for (let found = markedProcesses(marker); found.length > 0; found = markedProcesses(marker)) {
      for (const identity of found) killProcess(identity, 'SIGKILL');
      while (found.some(isAlive)) await delay(KILL_LOOK_MS, undefined, { signal });
    }
  }

  async writeFile(file: string, content: Uint8Array): Promise<void> {
    await mkdir(path.dirname(file), { recursive: true });
    const aside = `${file}.${process.pid}.new`;
    await writeFile(aside, content, { mode: 0o600 });
    await rename(aside, file);
  }

  async readFolder(folder: string, maxBytes: number): Promise<PlacedFile[]> {
    const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(absent);
    const files: PlacedFile[] = [];
    let left = maxBytes;
    for (const entry of entries ?? []) {
      if (!entry.isFile()) continue;
      const file = path.join(entry.parentPath, entry.name);
      left -= (await stat(file)).size;
      if (left < 0) throw tooLarge(folder, maxBytes);
      files.push({ path: path.relative(folder, file), content: await readFile(file) });
    }
    return files;
  }

  async remove(target: string): Promise<void> {
    await rm(target, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** The state of a harness is over what may be taken along. */
export function tooLarge(folder: string, maxBytes: number): LonghaulError {
  return new LonghaulError('harness_invalid', `${path.basename(folder)} holds more than ${maxBytes} bytes`);
}

function absent(error: unknown): undefined {
  if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
  throw error;
}

class LocalProcess implements StdioProcess {
  readonly ended: Promise<StdioEnd>;
  readonly ref: StdioRef;
  readonly #child: ChildProcess;
  #stderr = '';

  constructor(child: ChildProcess, ref: StdioRef) {
    this.#child = child;
    this.ref = ref;
    child.stderr?.on('data', (chunk: Buffer) => {
      this.#stderr = (this.#stderr + chunk.toString('utf8')).slice(-STDERR_CHARS);
    });
    child.stdin?.on('error', () => undefined);
    this.ended = new Promise((resolve) => {
      // `exit`, not `close`: a child of its own may hold the pipes open.
      child.once('exit', (code, signal) => {
        const how = signal === null ? `exit code ${code ?? 0}` : signal;
        resolve({ reason: `ended with ${how}${this.#stderr === '' ? '' : `: ${this.#stderr.trim()}`}` });
      });
    });
  }

  async *lines(): AsyncGenerator<StdioLine> {
    const { stdout } = this.#child;
    if (stdout === null) return;
    const splitter = new LineSplitter(0);
    // After its end nothing more comes, whoever has its pipes.
    void this.ended.then(() => setImmediate(() => stdout.destroy()));
    try {
      for await (const chunk of stdout as AsyncIterable<Buffer>) yield* splitter.push(chunk);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ERR_STREAM_PREMATURE_CLOSE') throw error;
    }
  }

  write(line: string): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#child.stdin?.write(`${line}\n`, (error) => (error ? reject(error) : resolve()));
    });
  }

  release(): void {
    this.#child.stdin?.end();
  }
}

/** Living processes of this user with the marker in their environment. */
function markedProcesses(marker: string): ProcessIdentity[] {
  const wanted = `${MARKER_VARIABLE}=${marker}`;
  return readdirSync('/proc').flatMap((name) => {
    if (!/^\d+$/.test(name) || Number(name) === process.pid) return [];
    try {
      if (!readFileSync(`/proc/${name}/environ`, 'utf8').split('\0').includes(wanted)) return [];
    } catch {
      // It ended, or is somebody else's.
      return [];
    }
    const startTime = startTimeOf(Number(name));
    return startTime === undefined ? [] : [{ pid: Number(name), startTime }];
  });
}
