import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { SandboxSpec } from '../port.ts';
import type { ProcessIdentity } from './host.ts';

/** What is on disk about a sandbox: enough for any process of this host to go on with it. */
export interface SandboxRecord {
  id: string;
  spec: SandboxSpec;
  /** The uid its processes have on the host; -1: that of the worker (who is not root). */
  uid: number;
  createdAtMs: number;
  expiresAtMs: number;
  paused: boolean;
  /** Paused with its memory: process 1 lives, and its commands stand still. */
  frozen?: boolean;
  holder: ProcessIdentity | null;
  /** Folders of this sandbox's control groups, by controller. */
  groups: string[];
}

/** Paths of one sandbox under the provider's root. */
export function pathsOf(
  rootDir: string,
  id: string,
): Record<'dir' | 'record' | 'box' | 'execs' | 'filter' | 'frozen' | 'lock', string> {
  const dir = path.join(rootDir, id);
  return {
    dir,
    record: path.join(dir, 'sandbox.json'),
    box: path.join(dir, 'box'),
    execs: path.join(dir, 'execs'),
    filter: path.join(dir, 'seccomp.bpf'),
    frozen: path.join(dir, 'frozen'),
    lock: path.join(dir, 'lock'),
  };
}

/** Undefined when there is no such sandbox (or its creation was cut short before the record). */
export function readRecord(rootDir: string, id: string): SandboxRecord | undefined {
  try {
    return JSON.parse(readFileSync(pathsOf(rootDir, id).record, 'utf8')) as SandboxRecord;
  } catch {
    return undefined;
  }
}

/** By rename: readers see the old record or the new one. */
export function writeRecord(rootDir: string, record: SandboxRecord): void {
  const { dir, record: file } = pathsOf(rootDir, record.id);
  mkdirSync(dir, { recursive: true });
  const temporary = `${file}.${process.pid}.${Math.random().toString(36).slice(2)}`;
  writeFileSync(temporary, JSON.stringify(record), { mode: 0o600 });
  renameSync(temporary, file);
}
