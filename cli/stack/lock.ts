import { randomBytes } from 'node:crypto';
import { linkSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { identify, isAlive, type ProcessIdentity } from './processes.ts';

/** Who holds the lock now: a living process, or null. */
export function lockHolder(file: string): ProcessIdentity | null {
  const holder = readHolder(file);
  return holder !== null && isAlive(holder) ? holder : null;
}

function readHolder(file: string): ProcessIdentity | null {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as ProcessIdentity;
  } catch {
    return null;
  }
}

/** Links `source` to `target`; false when `target` exists. */
function tryLink(source: string, target: string): boolean {
  try {
    linkSync(source, target);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

/** Moves a dead holder's lock away; a lock that was renewed in between is put back. */
function removeStale(file: string, aside: string): void {
  try {
    renameSync(file, aside);
  } catch {
    return;
  }
  const moved = readHolder(aside);
  if (moved !== null && isAlive(moved)) tryLink(aside, file);
  rmSync(aside, { force: true });
}

/** Takes a lock that lives as long as this process; null when another living process holds it. */
export function acquireLock(file: string): { release(): void } | null {
  const self = identify(process.pid);
  if (self === null) throw new LonghaulError('internal', 'This process does not see itself: is /proc mounted?');
  const unique = `${file}.${randomBytes(6).toString('hex')}`;
  writeFileSync(unique, JSON.stringify(self), { mode: 0o600 });
  try {
    for (let attempt = 0; attempt < 5; attempt += 1) {
      if (tryLink(unique, file)) return { release: () => rmSync(file, { force: true }) };
      if (lockHolder(file) !== null) return null;
      removeStale(file, `${unique}.stale`);
    }
    return null;
  } finally {
    rmSync(unique, { force: true });
  }
}
