import { createHash } from 'node:crypto';
import { existsSync, readdirSync, statSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import type { SandboxInfo } from '../port.ts';
import { thaw } from './freezer.ts';
import { markerOf } from './holder.ts';
import { isAlive, killProcess, processesNamed, startTimeOf } from './host.ts';
import type { SandboxRecord } from './record.ts';
import { pathsOf, readRecord } from './record.ts';

const NAME = 'local';
/** Supervisors end by themselves once their command is gone. */
const STRAYS_MS = 2_000;
const LEFT_MS = 60_000;
/** Host uids of sandboxes of a root worker: one each, far from those of people and services. */
const UID_BASE = 0x2000_0000;
const UID_SPAN = 0x4000_0000;

/** Killing process 1 of the namespace kills everything in it. */
export async function stopHolder(rootDir: string, record: SandboxRecord): Promise<void> {
  const { holder } = record;
  if (holder === null || !killProcess(holder, 'SIGKILL')) return;
  // Those that stand still end when they may move again.
  thaw(rootDir, record);
  while (startTimeOf(holder.pid) === holder.startTime) await delay(1);
}

/** Processes the record does not name: a lost record, or supervisors that have a last word to write. */
export async function stopStrays(rootDir: string, id: string): Promise<void> {
  const marker = markerOf(rootDir, id);
  const deadlineMs = Date.now() + STRAYS_MS;
  for (let waitMs = 1; ; waitMs *= 2) {
    const strays = processesNamed(marker);
    if (strays.length === 0) return;
    for (const { identity, isHolder } of strays) {
      if (isHolder || Date.now() > deadlineMs) killProcess(identity, 'SIGKILL');
    }
    await delay(Math.min(waitMs, 50));
  }
}

/** True for the folder of a creation that was cut short: it has no record, and nobody has touched it for a while. */
export function isLeft(rootDir: string, id: string): boolean {
  const stats = statSync(pathsOf(rootDir, id).dir, { throwIfNoEntry: false });
  return stats !== undefined && Date.now() - stats.mtimeMs >= LEFT_MS && readRecord(rootDir, id) === undefined;
}

/** The same for ever, so that files and processes find their owner again. */
export function uidOf(id: string): number {
  return UID_BASE + (createHash('sha256').update(id).digest().readUInt32BE(0) % UID_SPAN);
}

/** Kills process 1 of every sandbox under `rootDir`, and with it all its commands. Returns how many ran. */
export function stopAllSandboxes(rootDir: string): number {
  if (!existsSync(rootDir)) return 0;
  let stopped = 0;
  for (const id of readdirSync(rootDir)) {
    const record = readRecord(rootDir, id);
    if (record === undefined || record.holder === null || !killProcess(record.holder, 'SIGKILL')) continue;
    thaw(rootDir, record);
    stopped += 1;
  }
  return stopped;
}

/** What the port tells of a sandbox. */
export function infoOf(record: SandboxRecord): SandboxInfo {
  const running = record.holder !== null && isAlive(record.holder);
  // One that was frozen and whose processes died, as with their machine, has lost what it was to keep.
  const sleeps = record.paused && (running || record.frozen !== true);
  return {
    ref: { provider: NAME, id: record.id, meta: {} },
    state: sleeps ? 'paused' : running ? 'running' : 'stopped',
    owner: record.spec.owner,
    labels: record.spec.labels,
    createdAtMs: record.createdAtMs,
    expiresAtMs: record.expiresAtMs,
  };
}
