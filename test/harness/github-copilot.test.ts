import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { describe, it } from 'vitest';
import { CopilotDriver } from '../../activities/harness/github-copilot/driver.ts';
import { readHarnessConfig } from '../../activities/harness/config.ts';
import { endHarnessProcesses, readRecord } from '../../activities/harness/host/registry.ts';
import { isAlive, killProcess } from '../../activities/sandbox/local/host.ts';
import { waitUntil } from '../../cli/stack/wait.ts';
import { createLogger } from '../../telemetry/logger.ts';
import type { HarnessUnderTest } from '../conformance/harness-bed.ts';
import { harnessConformance } from '../conformance/harness.suite.ts';
import { installed } from '../support/harnesses.ts';

const { binary, reason } = { reason: '', ...(await installed('github-copilot')) };
if (binary === undefined) {
  describe('harness port: github-copilot', () => {
    it.skip(`NOT TESTED: ${reason}`);
  });
} else {
  harnessConformance('github-copilot', () => Promise.resolve(copilotUnderTest()));
}

/** The real runtime, one for all sessions of the file. */
function copilotUnderTest(): HarnessUnderTest {
  const home = mkdtempSync(path.join(os.tmpdir(), 'longhaul-copilot-'));
  const root = path.join(home, 'harness');
  const host = { root, idleMs: 600_000, sickMs: 20_000, logger: createLogger('test', 'silent') };
  const { installDir } = readHarnessConfig();
  return {
    driver: () => new CopilotDriver({ host, installDir }),
    placement: 'inline',
    hands: 'platform',
    shell: { tool: 'longhaul-bash', input: (command) => ({ command }) },
    kill: async () => {
      const server = readRecord(root, 'github-copilot');
      if (server === undefined) return;
      killProcess(server, 'SIGKILL');
      const what = 'the end of the server';
      await waitUntil(() => Promise.resolve(!isAlive(server)), { what, timeoutMs: 60_000, everyMs: 10 });
    },
    pids: () => {
      const server = readRecord(root, 'github-copilot');
      return Promise.resolve(server !== undefined && isAlive(server) ? [server.pid] : []);
    },
    close: async () => {
      await endHarnessProcesses(home);
      rmSync(home, { recursive: true, force: true, maxRetries: 10 });
    },
  };
}
