import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { anyFreePort } from '../../cli/stack/ports.ts';
import { readGatewayConfig } from '../../gateway/config.ts';
import {
  createSession,
  eventually,
  mintKey,
  openTestBed,
  post,
  startGateway,
  startUpstream,
  type RunningGateway,
  type TestBed,
  type Upstream,
} from './support.ts';

const isHere = spawnSync('redis-server', ['--version'], { stdio: 'ignore' }).status === 0;

describe.skipIf(!isHere)(`with Redis${isHere ? '' : ' (skipped: redis-server is not installed)'}`, () => {
  let bed: TestBed;
  let upstream: Upstream;
  let one: RunningGateway;
  let two: RunningGateway;
  let key: string;
  let port: number;
  let redis: ChildProcess;
  let env: Record<string, string>;
  const folder = mkdtempSync(path.join(os.tmpdir(), 'longhaul-redis-'));

  async function startRedis(): Promise<void> {
    redis = spawn('redis-server', ['--port', String(port), '--save', '', '--appendonly', 'no', '--dir', folder], {
      stdio: 'ignore',
    });
    await eventually(() => speaks(port));
  }

  beforeAll(async () => {
    [bed, upstream, port] = await Promise.all([openTestBed(), startUpstream(), anyFreePort()]);
    await startRedis();
    env = { ANTHROPIC_BASE_URL: upstream.url, REDIS_URL: `redis://127.0.0.1:${port}` };
    // A slow machine is no dead Redis.
    const cache = { ...readGatewayConfig(env).cache, redis: { url: env['REDIS_URL'] ?? '', patienceMs: 60_000 } };
    [one, two] = await Promise.all([startGateway(bed.pool, env, { cache }), startGateway(bed.pool, env, { cache })]);
    const sessionId = await createSession(bed.pool);
    await bed.pool.query(`UPDATE sessions SET agent = '{"response_cache": {"ttl": "5m", "tool_calls": false}}'`);
    key = await mintKey(bed.pool, { sessionId });
    upstream.answer = (_req, res) =>
      res.writeHead(200, { 'content-type': 'application/json' }).end(
        JSON.stringify({
          type: 'message',
          content: [{ type: 'text', text: randomUUID() }],
          stop_reason: 'end_turn',
          usage: { input_tokens: 1, output_tokens: 1 },
        }),
      );
  });
  afterAll(async () => {
    redis.kill('SIGKILL');
    await Promise.all([one.close(), two.close()]);
    await upstream.close();
    await bed.close();
    rmSync(folder, { recursive: true, force: true });
  });

  async function ask(gateway: RunningGateway, text: string): Promise<{ state: string | null; text: string }> {
    const body = { model: 'claude-opus-4-5', max_tokens: 9, messages: [{ role: 'user', content: text }] };
    const response = await post(`${gateway.url}/v1/messages`, key, body);
    expect(response.status).toBe(200);
    const { content } = (await response.json()) as { content: { text: string }[] };
    return { state: response.headers.get('x-cache'), text: content[0]?.text ?? '' };
  }
  async function inPostgres(): Promise<number> {
    return (await bed.pool.query('SELECT 1 FROM cached_answers')).rows.length;
  }

  it('keeps answers there, one call for many, over gateways', async () => {
    const asked = await Promise.all(Array.from({ length: 10 }, (_, n) => ask(n % 2 === 0 ? one : two, 'many')));
    expect(asked.filter(({ state }) => state === 'miss')).toHaveLength(1);
    expect(new Set(asked.map(({ text }) => text)).size).toBe(1);
    expect(upstream.requests).toHaveLength(1);
    expect(await inPostgres()).toBe(0);
  }, 60_000);

  it('falls through to Postgres while Redis is dead, and comes back to it', async () => {
    const gone = new Promise((resolve) => redis.once('exit', resolve));
    redis.kill('SIGKILL');
    await gone;
    expect((await ask(one, 'dead')).state).toBe('miss');
    await eventually(async () => (await ask(two, 'dead')).state === 'hit');
    expect(await inPostgres()).toBe(1);

    await startRedis();
    await eventually(async () => {
      const text = randomUUID();
      await ask(one, text);
      const before = await inPostgres();
      const again = await ask(one, text);
      // Known, and not from Postgres.
      await bed.pool.query('DELETE FROM cached_answers');
      return before === 0 && again.state === 'hit';
    });
  }, 120_000);

  it('does not wait for a Redis that hangs', async () => {
    const impatient = await startGateway(bed.pool, env);
    await ask(impatient, 'before');
    redis.kill('SIGSTOP');
    try {
      expect((await ask(impatient, 'hung')).state).toBe('miss');
      await eventually(async () => (await ask(impatient, 'hung')).state === 'hit');
    } finally {
      redis.kill('SIGCONT');
      await impatient.close();
    }
  }, 120_000);
});

function speaks(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => socket.write('PING\r\n'));
    socket.once('data', (data: Buffer) => {
      socket.destroy();
      resolve(data.toString().startsWith('+PONG'));
    });
    socket.once('error', () => resolve(false));
  });
}
