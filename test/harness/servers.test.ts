import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { waitUntil } from '../../cli/stack/wait.ts';
import {
  endHarnessProcesses,
  killHarnessProcesses,
  readRecord,
  recordFile,
  writeRecord,
} from '../../activities/harness/host/registry.ts';
import {
  acquireServer,
  holdServer,
  type HarnessHost,
  type RunningServer,
  type ServerSpec,
} from '../../activities/harness/host/servers.ts';
import { isAlive, startTimeOf } from '../../activities/sandbox/local/host.ts';
import { createLogger } from '../../telemetry/logger.ts';

const WAIT = { timeoutMs: 150_000, everyMs: 50 };
const PROGRAM = fileURLToPath(new URL('../support/harness-server.mjs', import.meta.url));
const OWNER = fileURLToPath(new URL('../support/harness-owner.mjs', import.meta.url));
const BUILT = fileURLToPath(new URL('../../dist/activities/harness/host/servers.js', import.meta.url));

let home: string;
let gate: string;
let host: HarnessHost;
let children: ChildProcess[];

beforeEach(() => {
  home = mkdtempSync(path.join(os.tmpdir(), 'longhaul-host-'));
  gate = '';
  children = [];
  host = { root: path.join(home, 'harness'), idleMs: 600_000, sickMs: 2_000, logger: createLogger('test', 'silent') };
});
afterEach(async () => {
  for (const child of children) child.kill('SIGKILL');
  await endHarnessProcesses(home);
  rmSync(home, { recursive: true, force: true, maxRetries: 10 });
});

const signal = new AbortController().signal;

function spec(): ServerSpec {
  return {
    name: 'test',
    binary: process.execPath,
    args: (port) => [PROGRAM, String(port), gate],
    env: ({ secret }) => ({ SECRET: secret }),
    endpoint: (port) => `http://127.0.0.1:${port}`,
    isReady: async (at, until) => (await ask(at, '/', until)).ok,
  };
}

const ask = (at: { endpoint: string; secret: string }, route = '/', until = signal): Promise<Response> =>
  fetch(`${at.endpoint}${route}`, { signal: until, headers: { authorization: at.secret } });
const gone = (server: RunningServer): Promise<void> =>
  waitUntil(() => Promise.resolve(!isAlive(server)), { what: 'the end of the server', ...WAIT });

/** Another worker; resolves when it has the server. */
function owner(): { child: ChildProcess; asking: Promise<void>; server: Promise<RunningServer> } {
  const child = spawn(process.execPath, [OWNER, BUILT, host.root, PROGRAM, gate], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  children.push(child);
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString('utf8')));
  const line = (count: number): Promise<void> =>
    waitUntil(() => Promise.resolve(output.split('\n').length > count), { what: 'the other worker', ...WAIT });
  const server = line(2).then(() => JSON.parse(output.split('\n')[1] ?? '') as RunningServer);
  return { child, asking: line(1), server };
}

async function kill(child: ChildProcess): Promise<void> {
  child.kill('SIGKILL');
  await waitUntil(() => Promise.resolve(child.signalCode !== null), { what: 'the end of the worker', ...WAIT });
}

describe('servers of harnesses', { timeout: 240_000 }, () => {
  it('gives everybody who asks at once, here and in other workers, one server', async () => {
    const others = [owner(), owner()];
    const here = await Promise.all([1, 2, 3].map(() => acquireServer(host, spec(), signal)));
    const all = [...here, ...(await Promise.all(others.map(({ server }) => server)))];
    expect(new Set(all.map(({ pid }) => pid)).size).toBe(1);
    expect(((await (await ask(all[0]!)).json()) as { pid: number }).pid).toBe(all[0]!.pid);
  });

  it('gives a server nothing of the worker but what it needs, and keeps its secret to its owner', async () => {
    process.env['LONGHAUL_VAULT_KEY'] = 'not-for-harnesses';
    try {
      const server = await acquireServer(host, spec(), signal);
      const { env, cwd } = (await (await ask(server)).json()) as { env: Record<string, string>; cwd: string };
      expect(Object.keys(env).toSorted()).toEqual(['HOME', 'LC_ALL', 'PATH', 'SECRET']);
      expect(cwd).toBe(env['HOME']);
      expect(readFileSync(recordFile(host.root, 'test'), 'utf8')).not.toContain(server.secret);
      for (const file of ['test.json', 'test.secret']) {
        expect(statSync(path.join(host.root, 'run', file)).mode & 0o77).toBe(0);
      }
    } finally {
      delete process.env['LONGHAUL_VAULT_KEY'];
    }
  });

  it('finds the server again after its worker was killed', async () => {
    const first = owner();
    const server = await first.server;
    await kill(first.child);
    expect(await acquireServer(host, spec(), signal)).toEqual(server);
  });

  it('waits for a server whose worker was killed while it came up', async () => {
    gate = path.join(home, 'gate');
    const first = owner();
    await waitUntil(() => Promise.resolve(existsSync(recordFile(host.root, 'test'))), { what: 'the record', ...WAIT });
    const pid = readRecord(host.root, 'test')?.pid;
    await kill(first.child);
    const next = acquireServer(host, spec(), signal);
    writeFileSync(gate, '');
    expect((await next).pid).toBe(pid);
  });

  it('starts another one when it was killed', async () => {
    const first = await acquireServer(host, spec(), signal);
    process.kill(first.pid, 'SIGKILL');
    await gone(first);
    const second = await acquireServer(host, spec(), signal);
    expect(second.pid).not.toBe(first.pid);
    expect((await ask(second)).ok).toBe(true);
  });

  it('ends one that lives but does not answer, and starts another', async () => {
    const first = await acquireServer(host, spec(), signal);
    process.kill(first.pid, 'SIGSTOP');
    const second = await acquireServer(host, spec(), signal);
    expect(isAlive(first)).toBe(false);
    expect((await ask(second)).ok).toBe(true);
  });

  it('starts another one for another program', async () => {
    const first = await acquireServer(host, spec(), signal);
    const other = { ...spec(), args: (port: number) => [PROGRAM, String(port), '', 'newer'] };
    expect((await acquireServer(host, other, signal)).pid).not.toBe(first.pid);
    expect(isAlive(first)).toBe(false);
  });

  it('never ends a process that has got the number of one that is gone', async () => {
    const innocent = spawn('sleep', ['3600'], { stdio: 'ignore', detached: true });
    children.push(innocent);
    const pid = Number(innocent.pid);
    const identity = { pid, startTime: startTimeOf(pid)! };
    await acquireServer(host, spec(), signal);
    const record = readRecord(host.root, 'test')!;
    await endHarnessProcesses(home);
    writeRecord(host.root, { ...record, pid });
    expect(isAlive(await acquireServer(host, spec(), signal))).toBe(true);
    writeRecord(host.root, { ...record, pid });
    expect(await endHarnessProcesses(home)).toBe(0);
    expect(isAlive(identity)).toBe(true);
  });

  it('ends one that nobody uses, and none that is held', async () => {
    const patient = { ...host, idleMs: 6_000 };
    host = { ...host, idleMs: 3_000 };
    const held = await acquireServer(host, spec(), signal);
    const release = holdServer(host, 'test');
    await gone(await acquireServer(patient, { ...spec(), name: 'other' }, signal));
    expect(isAlive(held)).toBe(true);
    release();
    await gone(held);
  });

  it('ends with its home', async () => {
    const server = await acquireServer(host, spec(), signal);
    rmSync(home, { recursive: true, force: true, maxRetries: 10 });
    await gone(server);
  });

  it('ends at once when the stack must', async () => {
    const server = await acquireServer(host, spec(), signal);
    expect(killHarnessProcesses(home)).toBe(1);
    await gone(server);
  });

  it('ends with the stack', async () => {
    const server = await acquireServer(host, spec(), signal);
    expect(await endHarnessProcesses(home)).toBe(1);
    expect(isAlive(server)).toBe(false);
    expect(await endHarnessProcesses(home)).toBe(0);
  });

  it('keeps its log short', async () => {
    const server = await acquireServer(host, spec(), signal);
    const log = path.join(host.root, 'run', 'test.log');
    expect((await ask(server, '/noise')).ok).toBe(true);
    await waitUntil(() => Promise.resolve(statSync(log).size < 1_000_000), { what: 'a short log', ...WAIT });
    expect(isAlive(server)).toBe(true);
  });

  it('says that a program does not start', async () => {
    const broken = { ...spec(), binary: '/bin/false' };
    await expect(acquireServer(host, broken, signal)).rejects.toMatchObject({ code: 'harness_unavailable' });
  });
});
