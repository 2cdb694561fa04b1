import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import type { Socket } from 'node:net';
import path from 'node:path';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import { hostScripts } from './enter.ts';
import { markerOf } from './holder.ts';
import type { ProcessIdentity } from './host.ts';
import { CLEAN_ENV, perlMissing } from './host.ts';
import type { SandboxRecord } from './record.ts';
import { pathsOf } from './record.ts';

/** One that nobody needed for this long ends: an idle sandbox has one process. */
const PARKED_MS = 20_000;
/** The next one is started when the machine is likely done with the command before. */
const NEXT_MS = 1;
/** A process without a command ends by itself when nobody waits for it. */
const DISMISSED_MS = 2_000;
/** News may get lost: looked at again this often. */
const CHECK_MS = 15_000;

interface Parked {
  supervisor: Supervisor;
  /** Process 1 of the sandbox it is for; undefined while that one starts beside it. */
  holder: ProcessIdentity | undefined;
  timer: NodeJS.Timeout;
}

/** A supervisor process, before and after it knows its command. What it tells replaces looking at files again and again. */
class Supervisor {
  private readonly child: ChildProcess;
  private readonly waiting = new Set<() => void>();
  private state: 'parked' | 'signed' | 'closed' = 'parked';
  private failure: Error | undefined;
  private changes = 0;

  constructor(rootDir: string, record: SandboxRecord) {
    const identity = [markerOf(rootDir, record.id), String(record.uid), record.groups.join(':')];
    const args = ['-e', hostScripts().supervisor, '--', ...identity];
    this.child = spawn('perl', args, { env: CLEAN_ENV, cwd: '/', detached: true, stdio: ['pipe', 'pipe', 'ignore'] });
    this.child.unref();
    for (const pipe of [this.child.stdin, this.child.stdout]) (pipe as Socket | null)?.unref();
    this.child.stdin?.on('error', () => undefined);
    this.child.stdout?.on('data', (told: Buffer) => {
      if (told.includes('s')) this.state = 'signed';
      this.wake();
    });
    this.child.stdout?.on('close', () => this.close());
    this.child.once('error', (error) => {
      this.failure = perlMissing(error);
      this.close();
    });
  }

  get isClosed(): boolean {
    return this.state === 'closed';
  }

  /** From here on it ends with the sandbox. */
  introduce(holder: ProcessIdentity): void {
    this.child.stdin?.write(`${holder.pid} ${holder.startTime}\n`);
  }

  /** True once the command is under way, false when the process ended before, having begun nothing or found it claimed. */
  async assign(dir: string): Promise<boolean> {
    this.child.stdin?.end(`${dir}\n`);
    while (this.state === 'parked') await this.change(this.changes, CHECK_MS);
    if (this.failure !== undefined) throw this.failure;
    return this.state === 'signed';
  }

  /** Ends it, if it has no command yet; resolves when it has ended. */
  async dismiss(): Promise<void> {
    this.child.stdin?.destroy();
    const deadline = setTimeout(() => this.child.kill('SIGKILL'), DISMISSED_MS).unref();
    while (!this.isClosed) await this.change(this.changes, DISMISSED_MS);
    clearTimeout(deadline);
  }

  get version(): number {
    return this.changes;
  }

  /** Resolves when there was a change after `version`, or the time is over. */
  change(version: number, waitMs: number): Promise<void> {
    if (this.changes !== version) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(() => done(), waitMs);
      const done = (): void => {
        clearTimeout(timer);
        this.waiting.delete(done);
        resolve();
      };
      this.waiting.add(done);
    });
  }

  private close(): void {
    this.state = 'closed';
    this.wake();
  }

  private wake(): void {
    this.changes += 1;
    for (const done of this.waiting) done();
  }
}

/** Waits for news of a command; without any, as long as `waitMs`. */
export interface News {
  version(): number;
  after(version: number, waitMs: number): Promise<void>;
}

/** Starts supervisors, one ahead of the next command of each sandbox at work. */
export class Launcher {
  private readonly rootDir: string;
  private readonly parked = new Map<string, Parked>();
  /** By sandbox: one is to be parked for it soon. */
  private readonly soon = new Map<string, NodeJS.Timeout>();
  /** By exec folder, as long as they run. */
  private readonly working = new Map<string, Supervisor>();

  constructor(rootDir: string) {
    this.rootDir = rootDir;
  }

  /** Starts the command of the folder's request, unless somebody claimed it before. */
  async launch(record: SandboxRecord, dir: string): Promise<void> {
    const { holder } = record;
    if (holder === null) throw new LonghaulError('sandbox_lost', 'the sandbox is not running');
    const waiting = this.take(record);
    const isTaken = waiting !== undefined && (await this.follow(waiting, dir));
    // What waited may have ended meanwhile, without a word.
    if (!isTaken && !existsSync(path.join(dir, 'claim'))) await this.follow(this.make(holder, record), dir);
    this.parkSoon(record);
  }

  /** Later, and only while the sandbox is there: nobody would end what waits for one that is gone. */
  private parkSoon(record: SandboxRecord): void {
    clearTimeout(this.soon.get(record.id));
    const timer = setTimeout(() => {
      this.soon.delete(record.id);
      if (existsSync(pathsOf(this.rootDir, record.id).record)) this.park(record);
    }, NEXT_MS);
    this.soon.set(record.id, timer.unref());
  }

  /** Starts a supervisor that waits for the sandbox's next command. */
  park(record: SandboxRecord): void {
    if (this.parkedFor(record) !== undefined) return;
    const supervisor = new Supervisor(this.rootDir, record);
    if (record.holder !== null) supervisor.introduce(record.holder);
    const timer = setTimeout(() => void this.drop(record.id), PARKED_MS).unref();
    this.parked.set(record.id, { supervisor, holder: record.holder ?? undefined, timer });
  }

  /** The sandbox that one was parked for has started. */
  introduce(id: string, holder: ProcessIdentity): void {
    const parked = this.parked.get(id);
    if (parked === undefined) return;
    parked.supervisor.introduce(holder);
    parked.holder = holder;
  }

  /** Nobody waits for this sandbox's commands any more. Resolves when what was parked for them has ended. */
  async drop(id: string): Promise<void> {
    clearTimeout(this.soon.get(id));
    this.soon.delete(id);
    const parked = this.parked.get(id);
    if (parked === undefined) return;
    this.parked.delete(id);
    clearTimeout(parked.timer);
    await parked.supervisor.dismiss();
  }

  /** News of a command this process started; undefined for others. */
  news(dir: string): News | undefined {
    const supervisor = this.working.get(dir);
    if (supervisor === undefined) return undefined;
    return {
      version: () => supervisor.version,
      after: (version, waitMs) => supervisor.change(version, waitMs),
    };
  }

  private async follow(supervisor: Supervisor, dir: string): Promise<boolean> {
    this.working.set(dir, supervisor);
    const isSigned = await supervisor.assign(dir);
    void this.untilClosed(supervisor, dir);
    return isSigned;
  }

  private async untilClosed(supervisor: Supervisor, dir: string): Promise<void> {
    while (!supervisor.isClosed) await supervisor.change(supervisor.version, CHECK_MS);
    if (this.working.get(dir) === supervisor) this.working.delete(dir);
  }

  private make(holder: ProcessIdentity, record: SandboxRecord): Supervisor {
    const supervisor = new Supervisor(this.rootDir, record);
    supervisor.introduce(holder);
    return supervisor;
  }

  private take(record: SandboxRecord): Supervisor | undefined {
    const parked = this.parkedFor(record);
    if (parked === undefined) return undefined;
    this.parked.delete(record.id);
    clearTimeout(parked.timer);
    return parked.supervisor;
  }

  private parkedFor(record: SandboxRecord): Parked | undefined {
    const parked = this.parked.get(record.id);
    if (parked === undefined) return undefined;
    const isSame = parked.holder?.pid === record.holder?.pid && parked.holder?.startTime === record.holder?.startTime;
    if (isSame && !parked.supervisor.isClosed) return parked;
    void this.drop(record.id);
    return undefined;
  }
}
