import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import type { SandboxRecord } from './record.ts';
import { pathsOf } from './record.ts';

const FREEZE_MS = 5_000;

/** The control file that stops all processes of a group, and what is written to it. */
interface Freezer {
  file: string;
  freeze: string;
  thaw: string;
  isFrozen(): boolean;
}

function freezerOf(groups: string[]): Freezer | undefined {
  for (const group of groups) {
    const [v2, v1] = [path.join(group, 'cgroup.freeze'), path.join(group, 'freezer.state')];
    if (existsSync(v2)) {
      const events = path.join(group, 'cgroup.events');
      return { file: v2, freeze: '1', thaw: '0', isFrozen: () => /^frozen 1$/m.test(readFileSync(events, 'utf8')) };
    }
    if (!existsSync(v1)) continue;
    return { file: v1, freeze: 'FROZEN', thaw: 'THAWED', isFrozen: () => readFileSync(v1, 'utf8').trim() === 'FROZEN' };
  }
  return undefined;
}

/** Stops all commands where they are. The file tells their supervisors that time stands still. */
export async function freeze(rootDir: string, record: SandboxRecord): Promise<void> {
  const freezer = freezerOf(record.groups);
  if (freezer === undefined) throw new LonghaulError('sandbox_unavailable', 'the sandbox has no freezer group');
  writeFileSync(pathsOf(rootDir, record.id).frozen, '', { mode: 0o600 });
  const deadlineMs = Date.now() + FREEZE_MS;
  do {
    writeFileSync(freezer.file, freezer.freeze);
    if (freezer.isFrozen()) return;
    await delay(2);
  } while (Date.now() < deadlineMs);
  thaw(rootDir, record);
  throw new LonghaulError('sandbox_unavailable', 'the sandbox could not be frozen in time');
}

/** Lets them go on; repeating it changes nothing. */
export function thaw(rootDir: string, record: SandboxRecord): void {
  const freezer = freezerOf(record.groups);
  if (freezer !== undefined) writeFileSync(freezer.file, freezer.thaw);
  rmSync(pathsOf(rootDir, record.id).frozen, { force: true });
}
