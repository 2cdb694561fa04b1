import { randomUUID } from 'node:crypto';
import { mkdirSync, readlinkSync, rmSync, rmdirSync, statSync, symlinkSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import { isAlive, startTimeOf } from './host.ts';

const WAIT_MS = 20_000;
/** A takeover is two system calls; one that takes this long was cut short by a crash. */
const TAKEOVER_MS = 5_000;

interface LockOptions {
  waitMs?: number;
  /** How long between two tries. */
  everyMs?: number;
  /** Thrown when the wait was in vain. */
  busy?: () => LonghaulError;
}

/**
 * One process of this host at a time does the work. The lock is a symlink whose target names its owner, so there is
 * no moment in which it is taken and nobody's; a lock whose owner died is taken over.
 */
export async function withLock<T>(file: string, work: () => Promise<T>, options: LockOptions = {}): Promise<T> {
  const mine = `${process.pid}:${startTimeOf(process.pid) ?? ''}:${randomUUID()}`;
  const deadlineMs = Date.now() + (options.waitMs ?? WAIT_MS);
  while (!tryLock(file, mine)) {
    if (Date.now() > deadlineMs) {
      throw options.busy?.() ?? new LonghaulError('sandbox_unavailable', 'the sandbox is busy');
    }
    if (!removeStale(file)) await delay(options.everyMs ?? 5);
  }
  try {
    return await work();
  } finally {
    if (ownerOf(file) === mine) rmSync(file, { force: true });
  }
}

function tryLock(file: string, mine: string): boolean {
  try {
    symlinkSync(mine, file);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw new LonghaulError('sandbox_unavailable', 'the sandbox could not be locked', { cause: error });
  }
}

/** Only one process may remove the lock of one dead owner: a second one would remove the lock of the next owner. */
function removeStale(file: string): boolean {
  const owner = ownerOf(file);
  if (owner === undefined) return true;
  const [pid = '', startTime = '', nonce = ''] = owner.split(':');
  if (isAlive({ pid: Number(pid), startTime })) return false;
  const turn = `${file}.${nonce}`;
  try {
    mkdirSync(turn);
  } catch {
    if (ageMs(turn) > TAKEOVER_MS) rmSync(turn, { recursive: true, force: true });
    return false;
  }
  if (ownerOf(file) === owner) rmSync(file, { force: true });
  rmdirSync(turn);
  return true;
}

function ownerOf(file: string): string | undefined {
  try {
    return readlinkSync(file);
  } catch {
    return undefined;
  }
}

function ageMs(folder: string): number {
  return Date.now() - (statSync(folder, { throwIfNoEntry: false })?.mtimeMs ?? Date.now());
}
