import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import path from 'node:path';
import { isAlive, killProcess, type ProcessIdentity } from '../../sandbox/local/host.ts';

/** Processes of harnesses that outlive the worker that started them. */
export interface ProcessRecord extends ProcessIdentity {
  name: string;
}

/** A server that many sessions share. */
export interface ServerRecord extends ProcessRecord {
  port: number;
  /** What it was started as; another one is another server. */
  fingerprint: string;
  spawnedAtMs: number;
  /** It has answered: from then on no boot excuses its silence. */
  wasReady?: boolean;
}

const END_GRACE_MS = 5_000;

/** Where the records of a home are; `root` is the harness folder of that home. */
export function runFolder(root: string): string {
  return path.join(root, 'run');
}

export function recordFile(root: string, name: string): string {
  return path.join(runFolder(root), `${name}.json`);
}

/** A record, whether its process lives or not. */
export function readRecord<T extends ProcessRecord>(root: string, name: string): T | undefined {
  try {
    return JSON.parse(readFileSync(recordFile(root, name), 'utf8')) as T;
  } catch {
    return undefined;
  }
}

/** Notes a process, so that another worker, and `longhaul stop`, find it. Only its owner can read the note. */
export function writeRecord<T extends ProcessRecord>(root: string, record: T): void {
  mkdirSync(runFolder(root), { recursive: true, mode: 0o700 });
  const file = recordFile(root, record.name);
  const aside = `${file}.${process.pid}`;
  writeFileSync(aside, JSON.stringify(record), { mode: 0o600 });
  renameSync(aside, file);
}

export function removeRecord(root: string, name: string): void {
  rmSync(recordFile(root, name), { force: true });
}

/** Ends exactly this process, and its group when it leads one. A pid that is another's by now is left alone. */
export async function endProcess(identity: ProcessIdentity, graceMs: number = END_GRACE_MS): Promise<boolean> {
  if (!signalGroup(identity, 'SIGTERM')) return false;
  const deadlineMs = Date.now() + graceMs;
  while (isAlive(identity)) {
    if (Date.now() > deadlineMs) signalGroup(identity, 'SIGKILL');
    await delay(10);
  }
  return true;
}

function signalGroup(identity: ProcessIdentity, signal: NodeJS.Signals): boolean {
  if (!isAlive(identity)) return false;
  try {
    // While this process lives no other group can have its number.
    process.kill(-identity.pid, signal);
    return true;
  } catch {
    return killProcess(identity, signal);
  }
}

function recordsOf(home: string): { root: string; records: ProcessRecord[] } {
  const root = path.join(home, 'harness');
  const folder = runFolder(root);
  const files = existsSync(folder) ? readdirSync(folder).filter((file) => file.endsWith('.json')) : [];
  const records = files.flatMap((file) => readRecord(root, file.slice(0, -'.json'.length)) ?? []);
  return { root, records };
}

/** Ends all processes of harnesses that a home's workers left running. Returns how many lived. */
export async function endHarnessProcesses(home: string): Promise<number> {
  const { root, records } = recordsOf(home);
  const ended = await Promise.all(
    records.map(async (record) => {
      const lived = await endProcess(record);
      removeRecord(root, record.name);
      return lived;
    }),
  );
  return ended.filter(Boolean).length;
}

/** The same at once, without grace. */
export function killHarnessProcesses(home: string): number {
  const { root, records } = recordsOf(home);
  return records.filter((record) => {
    const lived = signalGroup(record, 'SIGKILL');
    removeRecord(root, record.name);
    return lived;
  }).length;
}
