import { randomUUID } from 'node:crypto';
import { closeSync, existsSync, mkdirSync, openSync, readSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import { LIMITS } from '../../../contracts/limits.ts';
import type { ExecPoll, ExecSpec } from '../port.ts';
import { BASE_ENV } from './enter.ts';
import type { HeldLimits } from './groups.ts';
import { heldBy } from './groups.ts';
import type { ProcessIdentity } from './host.ts';
import { isAlive, killProcess } from './host.ts';
import { openInput } from './input.ts';
import { execDir, execStatus, forbid, put, supervisorOf } from './journal.ts';
import type { Launcher, News } from './launcher.ts';
import { processorsFor } from './processors.ts';
import type { SandboxRecord } from './record.ts';
import { pathsOf } from './record.ts';
import { CLAIM_MS } from './supervisor.ts';

const OPEN_FILES = 16_384;
/** News may get lost with the process that tells them, never for longer. */
const TOLD_MS = 200;
/** Numbers of Linux's resource limits. */
const RLIMIT = { fileSize: 1, data: 2, core: 4, processes: 6, files: 7 } as const;
const CHUNK_BYTES = 1024 * 1024;

/**
 * Hands the command to a supervisor process that outlives this one. The supervisor's claim decides: whoever calls
 * second, also after a crash of the first caller, attaches.
 */
export async function startExec(
  launcher: Launcher,
  rootDir: string,
  record: SandboxRecord,
  spec: ExecSpec,
): Promise<void> {
  const dir = execDir(rootDir, record.id, spec.execId);
  const claim = path.join(dir, 'claim');
  if (existsSync(claim)) return;
  const { holder } = record;
  if (holder === null || !isAlive(holder)) throw new LonghaulError('sandbox_lost', 'the sandbox is not running');
  if (record.paused) throw new LonghaulError('sandbox_lost', 'the sandbox is paused');
  const { stdin } = spec;
  // Named by the request: of two starters with different input, one wins with both.
  const named = stdin === undefined ? '' : stdin === 'open' ? stdin : `stdin.${randomUUID()}`;
  const request = requestOf(rootDir, record, { ...spec, stdin: named });
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  if (stdin === 'open') openInput(dir);
  else if (stdin !== undefined) writeFileSync(path.join(dir, named), stdin, { mode: 0o600 });
  put(dir, 'request', request);
  await launcher.launch(record, dir);
  // Its signature comes a moment after the claim; with it the command can be told from one that never began.
  await appears(path.join(dir, 'supervisor'), holder);
}

function requestOf(rootDir: string, record: SandboxRecord, spec: Omit<ExecSpec, 'stdin'> & { stdin: string }): string {
  const cwd = spec.cwd ?? '/workspace';
  if (!cwd.startsWith('/')) throw new LonghaulError('sandbox_invalid', 'must be absolute', { field: 'cwd' });
  if (spec.argv.length === 0) throw new LonghaulError('sandbox_invalid', 'must not be empty', { field: 'argv' });
  const env = Object.entries({ ...BASE_ENV, ...record.spec.env, ...spec.env });
  const { box, filter } = pathsOf(rootDir, record.id);
  const held = heldBy(record.groups);
  const fields = [
    filter,
    String(Math.max(1, spec.timeoutMs)),
    String(LIMITS.execOutputBytes),
    String(Math.ceil(record.spec.diskBytes / 1_024)),
    held.memory ? '' : String(Math.ceil(record.spec.memoryBytes / 1_024)),
    held.cpu ? '' : processorsFor(record.id, record.spec.cpus).join(','),
    box,
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

/** A sandbox that ended before anybody signed has nobody who will. */
async function appears(file: string, holder: ProcessIdentity): Promise<void> {
  const deadlineMs = Date.now() + CLAIM_MS;
  const [claim, exit] = ['claim', 'exit.json'].map((name) => path.join(path.dirname(file), name));
  while (!existsSync(file) && !existsSync(exit ?? '')) {
    if (!existsSync(claim ?? '') && !isAlive(holder))
      throw new LonghaulError('sandbox_lost', 'the sandbox is not running');
    if (Date.now() > deadlineMs) throw new LonghaulError('sandbox_unavailable', 'the command was not started in time');
    await delay(1);
  }
}

/** Waits for output past `from` or the end, at most `waitMs`. Whoever started the command is told; others look again. */
export async function pollExec(
  dir: string,
  from: { out: number; err: number },
  waitMs: number,
  signal: AbortSignal,
  news?: News,
): Promise<ExecPoll> {
  const deadlineMs = Date.now() + waitMs;
  for (let pauseMs = 1; ; pauseMs = Math.min(pauseMs * 1.3, 40)) {
    signal.throwIfAborted();
    const version = news?.version() ?? 0;
    // State first: output written before the end is then always read with it.
    const status = execStatus(dir);
    const stdout = readFrom(path.join(dir, 'out'), from.out);
    const stderr = readFrom(path.join(dir, 'err'), from.err);
    if (stdout.length > 0 || stderr.length > 0 || status.state !== 'running' || Date.now() >= deadlineMs) {
      return { status, stdout, stderr, next: { out: from.out + stdout.length, err: from.err + stderr.length } };
    }
    await (news === undefined
      ? delay(pauseMs)
      : news.after(version, Math.min(TOLD_MS, Math.max(1, deadlineMs - Date.now()))));
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
  forbid(dir);
  let isAsked = false;
  while (execStatus(dir).state === 'running') {
    // Between the claim and the signature there is nobody to ask yet.
    const supervisor = supervisorOf(dir);
    if (supervisor !== undefined && !isAsked) isAsked = killProcess(supervisor, 'SIGTERM');
    signal.throwIfAborted();
    await delay(5);
  }
}
