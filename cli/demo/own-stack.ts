import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { inheritedEnvironment } from '../config.ts';
import { homePaths, readDevJson, type DevJson } from '../stack/home.ts';

/** What the user's shell says about another stack or another Temporal must not reach this one. */
const FOREIGN = /^(DATABASE_URL$|TEMPORAL_(ADDRESS|NAMESPACE|UI_URL|API_KEY|TLS)|LONGHAUL_(?!LOG_LEVEL$))/;

interface Ended {
  code: number | null;
  stderr: string;
}

/** A whole stack in a temporary home: it neither needs nor disturbs one that runs. */
export class OwnStack {
  readonly home: string;
  readonly #env: Record<string, string>;
  #starting: ChildProcess | undefined;

  constructor(name: string, env: Record<string, string> = {}) {
    this.home = mkdtempSync(path.join(os.tmpdir(), `longhaul-${name}-`));
    this.#env = env;
  }

  /** Folder of the log files. */
  get logs(): string {
    return homePaths(this.home).logs;
  }

  /** Its handle as it is now: pids change when a process was started again. */
  devJson(): DevJson {
    const value = readDevJson(homePaths(this.home));
    if (value === null) throw new LonghaulError('internal', `no stack runs in ${this.home}`);
    return value;
  }

  isUp(): boolean {
    return readDevJson(homePaths(this.home)) !== null;
  }

  /** Starts it on free ports and waits until it is ready. */
  async start(): Promise<DevJson> {
    const { code, stderr } = await this.#run(['dev', '--detach'], (child) => {
      this.#starting = child;
    });
    this.#starting = undefined;
    if (code !== 0) throw new LonghaulError('setup_required', `the stack did not start:\n${stderr.trim()}`);
    return this.devJson();
  }

  /** Ends every process of it, also of one that is still starting. */
  async stop(): Promise<void> {
    this.#starting?.kill('SIGTERM');
    const { code, stderr } = await this.#run(['stop']);
    if (code !== 0) throw new LonghaulError('internal', `the stack did not stop in order:\n${stderr.trim()}`);
  }

  /** Removes the home; with `keepLogs` all but the log files. */
  remove(keepLogs: boolean): void {
    if (!keepLogs || !existsSync(this.logs)) {
      rmSync(this.home, { recursive: true, force: true });
      return;
    }
    for (const name of readdirSync(this.home)) {
      const file = path.join(this.home, name);
      if (file !== this.logs) rmSync(file, { recursive: true, force: true });
    }
  }

  #run(args: string[], onChild: (child: ChildProcess) => void = () => undefined): Promise<Ended> {
    const inherited = Object.entries(inheritedEnvironment()).filter(([name]) => !FOREIGN.test(name));
    const main = fileURLToPath(new URL('../main.js', import.meta.url));
    const child = spawn(process.execPath, [main, ...args], {
      // A group of its own: Ctrl-C reaches the caller only, which then stops the stack in order.
      detached: true,
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { ...Object.fromEntries(inherited), LONGHAUL_HOME: this.home, ...this.#env },
    });
    onChild(child);
    let stderr = '';
    child.stderr?.on('data', (chunk: Buffer) => (stderr += chunk.toString('utf8')));
    return new Promise((resolve, reject) => {
      child.once('error', reject);
      child.once('exit', (code) => {
        // The supervisor holds no copy of this pipe, but a stray one must not keep us waiting.
        child.stderr?.destroy();
        resolve({ code, stderr });
      });
    });
  }
}
