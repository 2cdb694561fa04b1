import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import { LIMITS } from '../../../contracts/limits.ts';
import { unsupported } from '../unsupported.ts';
import type { ExecPoll, ExecSpec, ExecState, KillReason } from '../port.ts';
import { BASE_ENV, hostScripts } from './enter.ts';
import type { HeldLimits } from './groups.ts';
import { heldBy } from './groups.ts';
import { markerOf } from './holder.ts';
import type { ProcessIdentity } from './host.ts';
import { CLEAN_ENV, isAlive, killProcess, perlMissing, signalName } from './host.ts';
import { CLAIM_MS } from './supervisor.ts';
import { processorsFor } from './processors.ts';
import type { SandboxRecord } from './record.ts';
import { pathsOf } from './record.ts';

const OPEN_FILES = 16_384;
const KEPT_EXECS = 20_000;
const KEPT_OUTPUT_BYTES = 4 * LIMITS.execOutputBytes;
const YOUNG_MS = 10 * 60_000;
/** Numbers of Linux's resource limits. */
const RLIMIT = { fileSize: 1, data: 2, core: 4, processes: 6, files: 7 } as const;
const CHUNK_BYTES = 1024 * 1024;

export function execDir(rootDir: string, sandboxId: string, execId: string): string {
  if (!/^[A-Za-z0-9_.-]{1,128}$/.test(execId)) {
    throw new LonghaulError('sandbox_invalid', 'must match [A-Za-z0-9_.-]{1,128}', { field: 'execId' });
  }
  // The prefix keeps `.` and `..` from being folders of something else.
  return path.join(pathsOf(rootDir, sandboxId).execs, `x-${execId}`);
}

/**
 * Hands the command to a supervisor process that outlives this one. The supervisor's claim decides: whoever calls
 * second, also after a crash of the first caller, attaches.
 */
export async function startExec(rootDir: string, record: SandboxRecord, spec: ExecSpec): Promise<void> {
  const dir = execDir(rootDir, record.id, spec.execId);
  const claim = path.join(dir, 'claim');
  if (existsSync(claim)) return;
  const { holder } = record;
  if (holder === null || !isAlive(holder)) throw new LonghaulError('sandbox_lost', 'the sandbox is not running');
  if (spec.stdin === 'open') throw unsupported('local', 'be fed input');
  // Named by the request: of two starters with different input, one wins with both.
  const stdin = spec.stdin === undefined ? '' : `stdin.${randomUUID()}`;
  const request = requestOf(rootDir, record, holder, { ...spec, stdin });
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  if (spec.stdin !== undefined) writeFileSync(path.join(dir, stdin), spec.stdin, { mode: 0o600 });
  put(dir, 'request', request);
  const child = spawn('perl', ['-e', hostScripts().supervisor, '--', dir], {
    env: CLEAN_ENV,
    cwd: '/',
    detached: true,
    stdio: 'ignore',
  });
  child.unref();
  const failed = new Promise<never>((_resolve, reject) => {
    child.once('error', (error) => reject(perlMissing(error)));
  });
  // Its signature comes a moment after the claim; with it the command can be told from one that never began.
  await Promise.race([appears(path.join(dir, 'supervisor')), failed]);
}

/** By rename: the supervisor of another starter may be reading. */
function put(dir: string, name: string, content: Uint8Array | string): void {
  const temporary = path.join(dir, `${name}.${randomUUID()}`);
  writeFileSync(temporary, content, { mode: 0o600 });
  renameSync(temporary, path.join(dir, name));
}

function requestOf(
  rootDir: string,
  record: SandboxRecord,
  holder: ProcessIdentity,
  spec: Omit<ExecSpec, 'stdin'> & { stdin: string },
): string {
  const cwd = spec.cwd ?? '/workspace';
  if (!cwd.startsWith('/')) throw new LonghaulError('sandbox_invalid', 'must be absolute', { field: 'cwd' });
  if (spec.argv.length === 0) throw new LonghaulError('sandbox_invalid', 'must not be empty', { field: 'argv' });
  const env = Object.entries({ ...BASE_ENV, ...record.spec.env, ...spec.env });
  const { box, filter } = pathsOf(rootDir, record.id);
  const held = heldBy(record.groups);
  const fields = [
    markerOf(rootDir, record.id),
    String(record.uid),
    String(holder.pid),
    holder.startTime,
    filter,
    String(Math.max(1, spec.timeoutMs)),
    String(LIMITS.execOutputBytes),
    String(Math.ceil(record.spec.diskBytes / 1_024)),
    held.memory ? '' : String(Math.ceil(record.spec.memoryBytes / 1_024)),
    held.cpu ? '' : processorsFor(record.id, record.spec.cpus).join(','),
    box,
    record.groups.join(':'),
    rlimitsOf(record, held),
    spec.stdin,
    cwd,
    String(env.length),
    ...env.flat(),
    ...spec.argv,
  ];
  if (fields.some((field) => field.includes('\0'))) {
    throw new LonghaulError('sandbox_invalid', 'argv, cwd and env must not contain NUL', { field: 'argv' });
  }
  return fields.join('\0');
}

/** Of every command; the kernel counts processes per user namespace, so per sandbox. */
function rlimitsOf(record: SandboxRecord, held: HeldLimits): string {
  const limits: [number, number][] = [
    [RLIMIT.core, 0],
    [RLIMIT.files, OPEN_FILES],
    [RLIMIT.fileSize, record.spec.diskBytes],
    [RLIMIT.processes, record.spec.pids],
  ];
  // What one process takes faster than the supervisor looks.
  if (!held.memory) limits.push([RLIMIT.data, record.spec.memoryBytes]);
  return limits.map(([resource, value]) => `${resource}=${value}`).join(',');
}

/**
 * Keeps the journal bounded: outputs of the oldest ended commands go, then their folders. What is young stays whatever
 * its size, since somebody may be reading it. A removed id could be started again, so folders stay far longer.
 */
export function pruneExecs(rootDir: string, sandboxId: string): void {
  const { execs } = pathsOf(rootDir, sandboxId);
  const past = readdirSync(execs).flatMap((name) => {
    const dir = path.join(execs, name);
    const endedAtMs = statSync(path.join(dir, 'exit.json'), { throwIfNoEntry: false })?.mtimeMs;
    return endedAtMs === undefined ? [] : [{ dir, endedAtMs }];
  });
  let keptBytes = 0;
  let kept = 0;
  for (const { dir, endedAtMs } of past.toSorted((a, b) => b.endedAtMs - a.endedAtMs)) {
    kept += 1;
    if (kept > KEPT_EXECS) {
      rmSync(dir, { recursive: true, force: true });
      continue;
    }
    const outputs = ['out', 'err'].map((name) => path.join(dir, name));
    const sizes = outputs.map((file) => statSync(file, { throwIfNoEntry: false })?.size ?? 0);
    keptBytes += sizes.reduce((sum, size) => sum + size, 0);
    if (keptBytes <= KEPT_OUTPUT_BYTES || Date.now() - endedAtMs < YOUNG_MS) continue;
    for (const file of outputs) rmSync(file, { force: true });
  }
}

async function appears(file: string): Promise<void> {
  const deadlineMs = Date.now() + CLAIM_MS;
  while (!existsSync(file)) {
    if (Date.now() > deadlineMs) throw new LonghaulError('sandbox_unavailable', 'the command was not started in time');
    await delay(1);
  }
}

interface ExitFile {
  code: number;
  signal: number;
  killed: '' | KillReason;
  lost: boolean;
}

const NEVER_STARTED: ExitFile = { code: 0, signal: 9, killed: 'signal', lost: false };

/** How the command stands, from its journal alone. */
export function execStatus(dir: string): ExecState {
  const exit = readJson<ExitFile>(path.join(dir, 'exit.json'));
  if (exit !== undefined) return ended(exit);
  if (!existsSync(path.join(dir, 'claim'))) return { state: 'absent' };
  const supervisor = supervisorOf(dir);
  if (supervisor === undefined) {
    // Between the claim and its signature; a supervisor killed right there, or late, never starts the command.
    const ageMs = Date.now() - statSync(path.join(dir, 'claim')).mtimeMs;
    return ageMs < CLAIM_MS ? { state: 'running' } : { state: 'lost' };
  }
  if (isAlive(supervisor)) return { state: 'running' };
  const late = readJson<ExitFile>(path.join(dir, 'exit.json'));
  return late === undefined ? { state: 'lost' } : ended(late);
}

function ended(exit: ExitFile): ExecState {
  if (exit.killed !== '') return { state: 'killed', reason: exit.killed };
  if (exit.lost) return { state: 'lost' };
  const { code, signal } = exit;
  if (signal === 0) return { state: 'exited', exitCode: code, signal: null };
  return { state: 'exited', exitCode: 128 + signal, signal: signalName(signal) };
}

function supervisorOf(dir: string): ProcessIdentity | undefined {
  try {
    const [pid, startTime] = readFileSync(path.join(dir, 'supervisor'), 'utf8').split(' ');
    return pid === undefined || startTime === undefined ? undefined : { pid: Number(pid), startTime };
  } catch {
    return undefined;
  }
}

function readJson<T>(file: string): T | undefined {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as T;
  } catch {
    return undefined;
  }
}

/** Waits for output past `from` or the end, at most `waitMs`. */
export async function pollExec(
  dir: string,
  from: { out: number; err: number },
  waitMs: number,
  signal: AbortSignal,
): Promise<ExecPoll> {
  const deadlineMs = Date.now() + waitMs;
  for (let pauseMs = 1; ; pauseMs = Math.min(pauseMs * 1.3, 40)) {
    signal.throwIfAborted();
    // State first: output written before the end is then always read with it.
    const status = execStatus(dir);
    const stdout = readFrom(path.join(dir, 'out'), from.out);
    const stderr = readFrom(path.join(dir, 'err'), from.err);
    if (stdout.length > 0 || stderr.length > 0 || status.state !== 'running' || Date.now() >= deadlineMs) {
      return { status, stdout, stderr, next: { out: from.out + stdout.length, err: from.err + stderr.length } };
    }
    await delay(pauseMs);
  }
}

function readFrom(file: string, offset: number): Uint8Array {
  let descriptor: number;
  try {
    descriptor = openSync(file, 'r');
  } catch {
    return new Uint8Array(0);
  }
  try {
    const buffer = Buffer.alloc(CHUNK_BYTES);
    const size = readSync(descriptor, buffer, 0, CHUNK_BYTES, offset);
    return buffer.subarray(0, size);
  } finally {
    closeSync(descriptor);
  }
}

/**
 * Kills the command's whole tree and waits until its journal says so. One that was not started is claimed instead: a
 * starter that slept until now finds it ended.
 */
export async function killExec(dir: string, signal: AbortSignal): Promise<void> {
  if (!existsSync(path.dirname(dir))) return;
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  if (claims(dir)) put(dir, 'exit.json', JSON.stringify(NEVER_STARTED));
  let isAsked = false;
  while (execStatus(dir).state === 'running') {
    // Between the claim and the signature there is nobody to ask yet.
    const supervisor = supervisorOf(dir);
    if (supervisor !== undefined && !isAsked) isAsked = killProcess(supervisor, 'SIGTERM');
    signal.throwIfAborted();
    await delay(5);
  }
}

function claims(dir: string): boolean {
  try {
    mkdirSync(path.join(dir, 'claim'));
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}
