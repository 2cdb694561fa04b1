import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import pg from 'pg';

/** The content of dev.json: what the product promises, written down here a second time on purpose. */
export interface DevJson {
  apiUrl: string;
  apiKey: string;
  gatewayUrl: string;
  egressUrl: string;
  temporalAddress: string;
  temporalNamespace: string;
  temporalUiUrl: string | null;
  databaseUrl: string;
  pids: Record<'supervisor' | 'api' | 'gateway' | 'worker' | 'egress' | 'temporal' | 'postgres', number | null>;
}

type Pids = DevJson['pids'];

interface CliResult {
  code: number | null;
  stdout: string;
  stderr: string;
}

const MAIN = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

/** A home of its own for one test. */
export function makeHome(): string {
  return mkdtempSync(path.join(os.tmpdir(), 'longhaul-home-'));
}

/** The environment of a child that must not see the servers or settings of whoever runs the tests. */
function cleanEnvironment(home: string, env: Record<string, string>): NodeJS.ProcessEnv {
  const inherited = Object.entries(process.env).filter(
    ([name]) => !/^(LONGHAUL_|TEMPORAL_ADDRESS|TEMPORAL_NAMESPACE|DATABASE_URL)/.test(name),
  );
  return { ...Object.fromEntries(inherited), LONGHAUL_HOME: home, ...env };
}

/** Starts the built command line without waiting for it. */
export function spawnCli(args: string[], home: string, env: Record<string, string> = {}): ChildProcess {
  if (!existsSync(MAIN)) throw new Error('dist/cli/main.js does not exist: run `npm run build` first');
  return spawn(process.execPath, [MAIN, ...args], {
    env: cleanEnvironment(home, env),
    stdio: ['ignore', 'pipe', 'pipe'],
  });
}

/** Runs the built command line to its end. */
export function runCli(args: string[], home: string, env: Record<string, string> = {}): Promise<CliResult> {
  const child = spawnCli(args, home, env);
  let stdout = '';
  let stderr = '';
  child.stdout?.on('data', (chunk: Buffer) => (stdout += chunk.toString('utf8')));
  child.stderr?.on('data', (chunk: Buffer) => (stderr += chunk.toString('utf8')));
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => resolve({ code, stdout, stderr }));
  });
}

/** True while a process with this pid runs (a zombie that nobody has reaped does not count). */
export function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
  } catch {
    return false;
  }
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return !['Z', 'X'].includes(stat.slice(stat.lastIndexOf(')') + 2, stat.lastIndexOf(')') + 3));
  } catch {
    return process.platform !== 'linux';
  }
}

/** Waits for a condition; fails with `what` after `timeoutMs`. */
export async function eventually(
  what: string,
  condition: () => boolean | Promise<boolean>,
  timeoutMs = 90_000,
): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`not so after ${timeoutMs} ms: ${what}`);
    await delay(20);
  }
}

interface StackOptions {
  home?: string;
  args?: string[];
  env?: Record<string, string>;
}

/** A whole stack of real processes, as `longhaul dev --detach` runs it. */
export interface TestStack {
  url: string;
  key: string;
  home: string;
  /** As it was at the start; `pids()` reads it anew. */
  devJson: DevJson;
  pids(): Pids;
  /** Waits until the api answers ready. */
  waitReady(timeoutMs?: number): Promise<void>;
  /** Kills one role with SIGKILL and waits until its successor works and the api is ready again. */
  killAndRecover(role: 'api' | 'worker' | 'egress' | 'temporal' | 'postgres'): Promise<void>;
  /** Ends it; removes the home unless it was given. */
  stop(): Promise<void>;
}

/** Reads dev.json of a home; null when no stack is published there. */
export function readDevJson(home: string): DevJson | null {
  try {
    return JSON.parse(readFileSync(path.join(home, 'dev.json'), 'utf8')) as DevJson;
  } catch {
    return null;
  }
}

function logsOf(home: string): string {
  const parts = ['supervisor', 'api', 'egress', 'worker'].map((role) => {
    const file = path.join(home, 'logs', `${role}.log`);
    return existsSync(file) ? `--- ${role}.log\n${readFileSync(file, 'utf8').slice(-1_500)}` : '';
  });
  return parts.join('\n');
}

/** Starts a stack with a home of its own and the ports that are free. */
export async function startStack(options: StackOptions = {}): Promise<TestStack> {
  const home = options.home ?? makeHome();
  const result = await runCli(['dev', '--detach', ...(options.args ?? [])], home, options.env);
  const devJson = readDevJson(home);
  if (result.code !== 0 || devJson === null) {
    await runCli(['stop'], home);
    throw new Error(`the stack did not start (exit code ${result.code}):\n${result.stderr}\n${logsOf(home)}`);
  }
  const pids = (): Pids => {
    const current = readDevJson(home);
    if (current === null) throw new Error('dev.json is gone: the stack was stopped');
    return current.pids;
  };
  const waitReady = (timeoutMs?: number): Promise<void> =>
    eventually('the api answers ready', () => answersReady(devJson.apiUrl), timeoutMs);
  return {
    url: devJson.apiUrl,
    key: devJson.apiKey,
    home,
    devJson,
    pids,
    waitReady,
    killAndRecover: async (role) => {
      const before = pids()[role];
      if (before === null) throw new Error(`${role} is not run by this stack`);
      const readyLines = workerReadyLines(home);
      process.kill(before, 'SIGKILL');
      await eventually(`another ${role} runs`, () => {
        const now = pids()[role];
        return now !== null && now !== before && isRunning(now);
      });
      if (role === 'postgres') await eventually('Postgres answers', () => answersQuery(devJson.databaseUrl));
      if (role === 'temporal') await eventually('Temporal answers', () => answersTemporal(devJson));
      if (role === 'egress') await eventually('the egress broker answers', () => answersOk(devJson.egressUrl));
      if (role === 'worker') await eventually('the worker is ready', () => workerReadyLines(home) > readyLines);
      await waitReady();
    },
    stop: async () => {
      await runCli(['stop'], home);
      if (options.home === undefined) rmSync(home, { recursive: true, force: true });
    },
  };
}

async function answersReady(apiUrl: string): Promise<boolean> {
  try {
    return (await fetch(`${apiUrl}/readyz`, { signal: AbortSignal.timeout(2_000) })).status === 200;
  } catch {
    return false;
  }
}

async function answersOk(url: string): Promise<boolean> {
  try {
    return (await fetch(`${url}/healthz`, { signal: AbortSignal.timeout(2_000) })).ok;
  } catch {
    return false;
  }
}

async function answersQuery(databaseUrl: string): Promise<boolean> {
  const client = new pg.Client({ connectionString: databaseUrl, connectionTimeoutMillis: 2_000 });
  client.on('error', () => undefined);
  try {
    await client.connect();
    return true;
  } catch {
    return false;
  } finally {
    await client.end().catch(() => undefined);
  }
}

async function answersTemporal({ temporalUiUrl, temporalNamespace }: DevJson): Promise<boolean> {
  try {
    const url = `${temporalUiUrl}/api/v1/namespaces/${temporalNamespace}`;
    return (await fetch(url, { signal: AbortSignal.timeout(2_000) })).ok;
  } catch {
    return false;
  }
}

function workerReadyLines(home: string): number {
  const file = path.join(home, 'logs', 'worker.log');
  return existsSync(file) ? readFileSync(file, 'utf8').split('"msg":"worker ready"').length - 1 : 0;
}
