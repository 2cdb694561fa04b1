import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { describe, it } from 'vitest';
import { OpenCodeDriver } from '../../activities/harness/opencode/driver.ts';
import { endHarnessProcesses, readRecord } from '../../activities/harness/host/registry.ts';
import type { HarnessHost } from '../../activities/harness/host/servers.ts';
import { isAlive } from '../../activities/sandbox/local/host.ts';
import { waitUntil } from '../../cli/stack/wait.ts';
import { readHarnessConfig } from '../../activities/harness/config.ts';
import { createLogger } from '../../telemetry/logger.ts';
import { harnessConformance } from '../conformance/harness.suite.ts';
import { installed } from '../support/harnesses.ts';

const opencode = await installed('opencode');

if (opencode.binary === undefined) {
  describe('harness port: opencode', () => {
    it.skip(`NOT TESTED, it could not be installed: ${opencode.reason}`, () => undefined);
  });
} else {
  harnessConformance('opencode', () => {
    const home = mkdtempSync(path.join(os.tmpdir(), 'longhaul-opencode-'));
    const host: HarnessHost = {
      root: path.join(home, 'harness'),
      idleMs: 600_000,
      sickMs: 60_000,
      logger: createLogger('test', 'silent'),
    };
    const { installDir } = readHarnessConfig();
    return Promise.resolve({
      driver: () => new OpenCodeDriver({ host, installDir }),
      placement: 'inline' as const,
      hands: 'platform' as const,
      shell: { tool: 'longhaul_bash', input: (command: string) => ({ command }) },
      kill: async () => {
        const record = readRecord(host.root, 'opencode');
        if (record === undefined) throw new Error('no server runs');
        process.kill(record.pid, 'SIGKILL');
        await waitUntil(() => Promise.resolve(!isAlive(record)), { what: 'the end of OpenCode', timeoutMs: 60_000 });
      },
      pids: () => Promise.resolve([readRecord(host.root, 'opencode')?.pid ?? 0]),
      faults: {
        html: { ends: ['stalled'], isIdle: true },
        // Of a call that it repeats it tells the message only: this one does not say what it is.
        '429-endless': { ends: ['rate_limit', 'overloaded'] },
      },
      close: async () => {
        await endHarnessProcesses(home);
        rmSync(home, { recursive: true, force: true, maxRetries: 10 });
      },
    });
  });
}
