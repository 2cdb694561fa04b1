import { mkdtempSync, rmSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { CopilotDriver } from '../../activities/harness/github-copilot/driver.ts';
import { readHarnessConfig } from '../../activities/harness/config.ts';
import { endHarnessProcesses, readRecord } from '../../activities/harness/host/registry.ts';
import { isAlive, killProcess } from '../../activities/sandbox/local/host.ts';
import { waitUntil } from '../../cli/stack/wait.ts';
import { createLogger } from '../../telemetry/logger.ts';
import { HarnessWorld, type HarnessUnderTest } from '../conformance/harness-bed.ts';
import { harnessConformance } from '../conformance/harness.suite.ts';
import { scriptText } from '../gateway/support.ts';
import { installed } from '../support/harnesses.ts';
import { LONG_MS } from '../support/sandbox-commands.ts';

const { binary, reason } = { reason: '', ...(await installed('github-copilot')) };
if (binary === undefined) {
  describe('harness port: github-copilot', () => {
    it.skip(`NOT TESTED: ${reason}`);
  });
} else {
  harnessConformance('github-copilot', () => Promise.resolve(copilotUnderTest()));
  describe('copilot beside the worker', { timeout: LONG_MS }, sharedRuntimeParts);
}

function sharedRuntimeParts(): void {
  let under: CopilotUnderTest;
  let world: HarnessWorld;
  beforeAll(async () => {
    under = copilotUnderTest();
    world = await HarnessWorld.open();
  }, LONG_MS);
  afterAll(async () => {
    await world.close();
    await under.close();
  }, LONG_MS);

  it('has no tools but ours, and keeps no key on disk', async () => {
    const talk = await world.talk(under);
    await talk.open();
    for (const [index, model] of ['gpt-5.5', 'scripted'].entries()) {
      await talk.run(scriptText([{ text: 'hello' }]), { turn: index + 1, model });
      const { tools = [] } = JSON.parse(talk.bodies().at(-1) ?? '{}') as { tools?: { function: { name: string } }[] };
      expect(tools.map((tool) => tool.function.name)).toEqual(['longhaul-bash']);
    }
    for (const entry of await readdir(under.root, { recursive: true, withFileTypes: true })) {
      if (!entry.isFile()) continue;
      const text = await readFile(path.join(entry.parentPath, entry.name), 'latin1');
      for (const secret of [talk.key, talk.mcpToken]) expect(text.includes(secret), entry.name).toBe(false);
    }
  });

  it('does not ask a model that would have no tools, and says that it may be tried again', async () => {
    const own = { name: 'longhaul', url: world.tools.url, headers: { authorization: 'Bearer of-nobody' } };
    const talk = await world.talk(under, { mcpServers: [own] });
    await talk.open();
    const { ending } = await talk.run(scriptText([{ text: 'never' }]), { turn: 1 });
    expect(ending).toMatchObject({ kind: 'failed', fault: 'harness_crash', retryable: true });
    expect(talk.bodies()).toEqual([]);
  });

  it('refuses state that is none, and a place it has not', async () => {
    const talk = await world.talk(under, { placement: 'sandbox', hands: 'own' });
    await expect(talk.open()).rejects.toMatchObject({ code: 'harness_invalid' });
    const signal = AbortSignal.timeout(LONG_MS);
    for (const [sessionId, state] of [
      ['../outside', '{}'],
      ['sesn_x', '{}'],
    ] as const) {
      await expect(talk.driver.importState(talk.spec, { sessionId }, Buffer.from(state), signal)).rejects.toMatchObject(
        { code: 'harness_invalid' },
      );
    }
  });
}

interface CopilotUnderTest extends HarnessUnderTest {
  root: string;
}

/** The real runtime, one for all sessions of the file. */
function copilotUnderTest(): CopilotUnderTest {
  const home = mkdtempSync(path.join(os.tmpdir(), 'longhaul-copilot-'));
  const root = path.join(home, 'harness');
  const host = { root, idleMs: 600_000, sickMs: 20_000, logger: createLogger('test', 'silent') };
  const { installDir } = readHarnessConfig();
  return {
    root,
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
