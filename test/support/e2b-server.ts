import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chownSync, mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { stopAllSandboxes } from '../../activities/sandbox/index.ts';
import { createPool, type Pool } from '../../db/pool.ts';
import { createApiKey } from '../../db/queries/api-keys.ts';
import { testDatabase } from './postgres.ts';

const MAIN = fileURLToPath(new URL('../../dist/facades/e2b/main.js', import.meta.url));

export interface E2bServer {
  url: string;
  pid: number;
  /** SIGKILL: nothing in it gets a chance to tidy up. */
  kill(): Promise<void>;
}

/** The shipped server as a process, over a database and a home of its own. */
export interface E2bBed {
  pool: Pool;
  databaseUrl: string;
  home: string;
  server: E2bServer;
  /** Of team `default`. */
  apiKey: string;
  /** Another key. */
  keyOf(teamId: string): Promise<string>;
  /** Another server over the same home; with a port, at the same address as one that died. */
  start(port?: number, env?: Record<string, string>): Promise<E2bServer>;
  close(): Promise<void>;
}

/** Starts one. */
export async function makeE2bBed(env: Record<string, string> = {}, uid: number | null = null): Promise<E2bBed> {
  const database = await testDatabase();
  const home = mkdtempSync(path.join(os.tmpdir(), 'longhaul-e2b-'));
  if (uid !== null) chownSync(home, uid, uid);
  const pool = createPool({ databaseUrl: database.url, applicationName: 'test', max: 2 });
  const servers: E2bServer[] = [];
  const start: E2bBed['start'] = async (port = 0, more = {}) => {
    const settings = { DATABASE_URL: database.url, LONGHAUL_HOME: home, LONGHAUL_E2B_PORT: String(port) };
    const made = await startServer({ ...settings, LONGHAUL_E2B_SWEEP_MS: '100', ...env, ...more }, uid);
    servers.push(made);
    return made;
  };
  const keyOf: E2bBed['keyOf'] = async (teamId) =>
    (await createApiKey(pool, { name: 'test', userId: 'tester', teamId })).key;
  return {
    pool,
    databaseUrl: database.url,
    home,
    apiKey: await keyOf('default'),
    keyOf,
    start,
    server: await start(),
    async close() {
      for (const server of servers) await server.kill();
      stopAllSandboxes(path.join(home, 'sandboxes'));
      await pool.end();
      await database.drop();
      rmSync(home, { recursive: true, force: true });
    },
  };
}

async function startServer(env: Record<string, string>, uid: number | null): Promise<E2bServer> {
  const child = spawn(process.execPath, ['--enable-source-maps', MAIN], {
    env: { PATH: '/usr/local/bin:/usr/bin:/bin', ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
    ...(uid === null ? {} : { uid, gid: uid }),
  });
  const port = await new Promise<number>((resolve, reject) => {
    child.once('exit', (code) => reject(new Error(`the e2b server ended with ${code}`)));
    createInterface({ input: child.stdout }).on('line', (line) => {
      const entry = JSON.parse(line) as { msg: string; port?: number; level: string };
      if (entry.msg === 'e2b server listens') resolve(entry.port ?? 0);
      else if (['error', 'fatal'].includes(entry.level)) process.stderr.write(`${line}\n`);
    });
  });
  return {
    url: `http://127.0.0.1:${port}`,
    pid: child.pid ?? 0,
    async kill() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const closed = once(child, 'close');
      child.kill('SIGKILL');
      await closed;
    },
  };
}
