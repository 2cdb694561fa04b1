import { randomUUID } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import { LIMITS } from '../../../contracts/limits.ts';
import type { ExecInfo, ExecState, KillReason } from '../port.ts';
import type { ProcessIdentity } from './host.ts';
import { isAlive, signalName } from './host.ts';
import { CLAIM_MS } from './supervisor.ts';
import { pathsOf } from './record.ts';

const KEPT_EXECS = 20_000;
const KEPT_OUTPUT_BYTES = 4 * LIMITS.execOutputBytes;
const YOUNG_MS = 10 * 60_000;
/** The prefix keeps `.` and `..` from being folders of something else. */
const PREFIX = 'x-';

export function execDir(rootDir: string, sandboxId: string, execId: string): string {
  if (!/^[A-Za-z0-9_.-]{1,128}$/.test(execId)) {
    throw new LonghaulError('sandbox_invalid', 'must match [A-Za-z0-9_.-]{1,128}', { field: 'execId' });
  }
  return path.join(pathsOf(rootDir, sandboxId).execs, `${PREFIX}${execId}`);
}

interface ExitFile {
  code: number;
  signal: number;
  killed: '' | KillReason;
  lost: boolean;
}

const NEVER_STARTED: ExitFile = { code: 0, signal: 9, killed: 'signal', lost: false };

/** By rename: the supervisor of another starter may be reading. */
export function put(dir: string, name: string, content: Uint8Array | string): void {
  const temporary = path.join(dir, `${name}.${randomUUID()}`);
  writeFileSync(temporary, content, { mode: 0o600 });
  renameSync(temporary, path.join(dir, name));
}

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

/** Who runs the command, once it signed. */
export function supervisorOf(dir: string): ProcessIdentity | undefined {
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

/** True for the one who may decide about this id: it is never started afterwards. */
export function forbid(dir: string): void {
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  try {
    mkdirSync(path.join(dir, 'claim'));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return;
    throw error;
  }
  put(dir, 'exit.json', JSON.stringify(NEVER_STARTED));
}

/** The commands of a sandbox, newest first. */
export function listExecs(rootDir: string, sandboxId: string, limit: number): ExecInfo[] {
  const { execs } = pathsOf(rootDir, sandboxId);
  const claimed = readdirSync(execs).flatMap((name) => {
    const stats = statSync(path.join(execs, name, 'claim'), { throwIfNoEntry: false, bigint: true });
    return stats === undefined ? [] : [{ name, at: stats.mtimeNs }];
  });
  const newest = claimed.toSorted((a, b) => (a.at < b.at ? 1 : -1)).slice(0, Math.max(0, limit));
  return newest.map(({ name }) => ({
    execId: name.slice(PREFIX.length),
    status: execStatus(path.join(execs, name)),
  }));
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
    const streams = ['out', 'err', 'input'].map((name) => path.join(dir, name));
    const sizes = streams.map((file) => statSync(file, { throwIfNoEntry: false })?.size ?? 0);
    keptBytes += sizes.reduce((sum, size) => sum + size, 0);
    if (keptBytes <= KEPT_OUTPUT_BYTES || Date.now() - endedAtMs < YOUNG_MS) continue;
    for (const file of streams) rmSync(file, { force: true });
  }
}
