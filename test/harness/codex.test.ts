import { mkdtempSync, rmSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { CodexDriver } from '../../activities/harness/codex/driver.ts';
import { connectWebSocket } from '../../activities/harness/codex/websocket.ts';
import { readHarnessConfig } from '../../activities/harness/config.ts';
import { endHarnessProcesses, readRecord, type ServerRecord } from '../../activities/harness/host/registry.ts';
import { isAlive, killProcess } from '../../activities/sandbox/local/host.ts';
import { waitUntil } from '../../cli/stack/wait.ts';
import { createLogger } from '../../telemetry/logger.ts';
import { HarnessWorld, type HarnessUnderTest } from '../conformance/harness-bed.ts';
import { allow, harnessConformance } from '../conformance/harness.suite.ts';
import { scriptText } from '../gateway/support.ts';
import { installed } from '../support/harnesses.ts';
import { LONG_MS } from '../support/sandbox-commands.ts';

const { binary, reason } = { reason: '', ...(await installed('codex')) };
if (binary === undefined) {
  describe('harness port: codex', () => {
    it.skip(`NOT TESTED: ${reason}`);
  });
} else {
  harnessConformance('codex', () => Promise.resolve(codexUnderTest()));
  describe('codex beside the worker', { timeout: LONG_MS }, sharedServerParts);
}

function sharedServerParts(): void {
  let under: CodexUnderTest;
  let world: HarnessWorld;
  beforeAll(async () => {
    under = codexUnderTest();
    world = await HarnessWorld.open();
  }, LONG_MS);
  afterAll(async () => {
    await world.close();
    await under.close();
  }, LONG_MS);

  it('has no tools but ours, whatever it knows of the model', async () => {
    const talk = await world.talk(under);
    await talk.open();
    // Codex gives this one a JavaScript engine, a shell and a search when it may; our gateway does not have it.
    for (const [index, model] of ['gpt-5.5', 'gpt-6.1-sol', 'scripted'].entries()) {
      await talk.run(scriptText([{ text: 'hello' }]), { turn: index + 1, model });
      expect(toolNames(talk.bodies().at(-1))).toEqual([
        'list_mcp_resource_templates',
        'list_mcp_resources',
        'mcp__longhaul.bash',
        'read_mcp_resource',
      ]);
    }
  });

  it('takes nobody who has not the token of its server', async () => {
    const talk = await world.talk(under);
    await talk.open();
    const record = readRecord<ServerRecord>(under.root, 'codex');
    const signal = AbortSignal.timeout(30_000);
    await expect(connectWebSocket(`ws://127.0.0.1:${record?.port}`, 'another', signal)).rejects.toThrow(
      'takes no connection',
    );
  });

  it('asks with the key of today, and keeps no key on disk', async () => {
    const [talk, other] = [await world.talk(under), await world.talk(under)];
    await talk.open();
    await talk.run(scriptText([{ text: 'one' }], 'first'), { turn: 1 });
    talk.spec.model.key = other.key;
    await talk.open();
    await talk.run(scriptText([{ text: 'two' }], 'second'), { turn: 2 });
    expect(other.bodies().at(-1)).toContain('first');
    for (const entry of await readdir(under.root, { recursive: true, withFileTypes: true })) {
      if (!entry.isFile()) continue;
      const text = await readFile(path.join(entry.parentPath, entry.name), 'latin1');
      for (const secret of [talk.key, other.key, talk.mcpToken]) expect(text.includes(secret), entry.name).toBe(false);
    }
  });

  it('gives each call an id, under which it says that it has the result', async () => {
    const talk = await world.talk(under);
    await talk.open();
    const before = world.tools.told.length;
    const step = { tools: ['one', 'two'].map(() => ({ name: 'bash', input: { command: 'true' } })) };
    const { host } = await talk.run(scriptText([step, { text: 'done' }]), { turn: 1, gate: allow });
    const told = world.tools.told.slice(before).map(({ callId }) => callId);
    expect(new Set(told).size).toBe(2);
    const seen = host.of('platform_result_seen').map(({ id }) => id);
    expect(seen.toSorted()).toEqual((told as string[]).toSorted());
  });

  it('opens no session whose model would have no tools, and says that it may be tried again', async () => {
    const own = { name: 'longhaul', url: world.tools.url, headers: { authorization: 'Bearer of-nobody' } };
    const talk = await world.talk(under, { mcpServers: [own] });
    await expect(talk.open()).rejects.toMatchObject({ code: 'harness_unavailable' });
  });

  it('says that it compacted a conversation that became too long', async () => {
    const talk = await world.talk(under);
    await talk.open();
    const usage = { input: 250_000, output: 10 };
    await talk.run(scriptText([{ text: 'a lot', usage }]), { turn: 1 });
    const { host, ending } = await talk.run(scriptText([{ text: 'short again' }]), { turn: 2 });
    expect(ending).toEqual({ kind: 'completed', stopReason: 'end_turn' });
    expect(host.of('compaction')).toHaveLength(1);
  });

  it('refuses to open a session whose history is gone, and one it cannot place', async () => {
    const talk = await world.talk(under);
    await talk.open();
    talk.token = { threadId: '01a1ff82-9f95-7361-8eaa-d558210d66dd', rollout: null };
    await expect(talk.open()).rejects.toMatchObject({ code: 'harness_invalid' });
    const placed = await world.talk(under, { placement: 'sandbox', hands: 'own' });
    await expect(placed.open()).rejects.toMatchObject({ code: 'harness_invalid' });
    const state = new Uint8Array(8);
    for (const rollout of ['../../outside.jsonl', 'sessions/../../x/rollout-1.jsonl', '/etc/rollout-1.jsonl']) {
      const token = { threadId: 'x', rollout };
      await expect(
        talk.driver.importState(talk.spec, token, state, AbortSignal.timeout(LONG_MS)),
      ).rejects.toMatchObject({ code: 'harness_invalid' });
    }
  });
}

/** Names of tools a model was shown, with their namespace. */
function toolNames(body = '{}'): string[] {
  interface Shown {
    type: string;
    name?: string;
    tools?: Shown[];
  }
  const { tools = [], input = [] } = JSON.parse(body) as { tools?: Shown[]; input?: { tools?: Shown[] }[] };
  return [...tools, ...input.flatMap((item) => item.tools ?? [])]
    .flatMap(({ name = '', tools: inner }) => inner?.map((each) => `${name}.${each.name}`) ?? [name])
    .toSorted();
}

interface CodexUnderTest extends HarnessUnderTest {
  root: string;
}

/** The real codex, one app-server for all sessions of the file. */
function codexUnderTest(): CodexUnderTest {
  const home = mkdtempSync(path.join(os.tmpdir(), 'longhaul-codex-'));
  const root = path.join(home, 'harness');
  const host = { root, idleMs: 600_000, sickMs: 20_000, logger: createLogger('test', 'silent') };
  const { installDir } = readHarnessConfig();
  return {
    root,
    driver: () => new CodexDriver({ host, installDir }),
    placement: 'inline',
    hands: 'platform',
    shell: { tool: 'bash', input: (command) => ({ command }) },
    kill: async () => {
      const server = readRecord(root, 'codex');
      if (server === undefined) return;
      killProcess(server, 'SIGKILL');
      const what = 'the end of the server';
      await waitUntil(() => Promise.resolve(!isAlive(server)), { what, timeoutMs: 60_000, everyMs: 10 });
    },
    pids: () => {
      const server = readRecord(root, 'codex');
      return Promise.resolve(server !== undefined && isAlive(server) ? [server.pid] : []);
    },
    close: async () => {
      await endHarnessProcesses(home);
      rmSync(home, { recursive: true, force: true, maxRetries: 10 });
    },
  };
}
