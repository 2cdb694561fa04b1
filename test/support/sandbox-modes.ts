import { chownSync, mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import type { SandboxUnderTest } from '../conformance/sandbox.suite.ts';
import { type SandboxProcess, startSandboxProcess } from './sandbox-process.ts';

/** Whoever runs the worker: root gives each sandbox a user of its own, an ordinary user cannot. */
export interface SandboxMode {
  name: string;
  /** null: the user of the tests. */
  uid: number | null;
}

const ORDINARY_UID = 61_234;
const isRoot = process.geteuid?.() === 0;

/** Root can test both; an ordinary user cannot become root. */
export const SANDBOX_MODES: SandboxMode[] = isRoot
  ? [
      { name: 'as root', uid: null },
      { name: 'as an ordinary user', uid: ORDINARY_UID },
    ]
  : [{ name: 'as an ordinary user', uid: null }];

export interface SandboxBed extends SandboxUnderTest {
  rootDir: string;
  /** The process the provider runs in. */
  pid: number;
  /** Another process with the same configuration, as a worker. */
  worker(): SandboxProcess;
}

/** A provider in a process of its own, over a directory only its user may enter. */
export function makeBed(mode: SandboxMode, env: Record<string, string> = {}, parent = os.tmpdir()): SandboxBed {
  const rootDir = mkdtempSync(path.join(parent, 'longhaul-sandboxes-'));
  if (mode.uid !== null) chownSync(rootDir, mode.uid, mode.uid);
  const processes: SandboxProcess[] = [];
  const start = (): SandboxProcess => {
    const started = startSandboxProcess({ rootDir, uid: mode.uid, env });
    processes.push(started);
    return started;
  };
  const main = start();
  return {
    rootDir,
    pid: main.pid,
    provider: main.provider,
    another: () => Promise.resolve(start()),
    worker: start,
    close: async () => {
      const owners = ['conformance', 'somebody else', 'escape'];
      for (const owner of owners) {
        for await (const info of main.provider.list(owner, AbortSignal.timeout(180_000))) {
          await main.provider.destroy(info.ref, AbortSignal.timeout(180_000));
        }
      }
      for (const each of processes) await each.kill();
      rmSync(rootDir, { recursive: true, force: true });
    },
  };
}
