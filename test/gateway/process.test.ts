import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { createInterface } from 'node:readline';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { createApiKey } from '../../db/queries/api-keys.ts';
import {
  createSession,
  eventually,
  ledgerRows,
  messagesRequest,
  mintKey,
  openTestBed,
  post,
  scriptText,
  startUpstream,
  type TestBed,
  type Upstream,
} from './support.ts';

const MAIN = fileURLToPath(new URL('../../dist/gateway/main.js', import.meta.url));

let bed: TestBed;
let upstream: Upstream;
const children: ChildProcess[] = [];

beforeAll(async () => {
  if (!existsSync(MAIN)) throw new Error('dist/gateway/main.js does not exist: run `npm run build` first');
  [bed, upstream] = await Promise.all([openTestBed(), startUpstream()]);
});
afterEach(async () => {
  await Promise.all(children.splice(0).map(kill));
});
afterAll(async () => {
  await upstream.close();
  await bed.close();
});

async function kill(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGKILL');
  await ended;
}

/** A gateway process; resolves with its address once it listens. */
async function startProcess(env: Record<string, string> = {}): Promise<{ child: ChildProcess; url: string }> {
  const child = spawn(process.execPath, [MAIN], {
    env: {
      PATH: process.env['PATH'],
      DATABASE_URL: bed.databaseUrl,
      LONGHAUL_GATEWAY_PORT: '0',
      LONGHAUL_GATEWAY_LEASE_MS: '1000',
      LONGHAUL_SCRIPTED: '1',
      ANTHROPIC_BASE_URL: upstream.url,
      ANTHROPIC_API_KEY: 'provider-key',
      ...env,
    },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  children.push(child);
  for await (const line of createInterface({ input: child.stdout })) {
    const { msg, port } = JSON.parse(line) as { msg: string; port?: number };
    if (msg === 'gateway listens') return { child, url: `http://127.0.0.1:${port}` };
  }
  throw new Error('the gateway ended before it listened');
}

const EVENTS = [
  'event: message_start\ndata: {"type":"message_start","message":{"id":"m","usage":{"input_tokens":10,"output_tokens":1}}}\n\n',
  'event: message_delta\ndata: {"type":"message_delta","delta":{},"usage":{"output_tokens":5}}\n\n',
  'event: message_stop\ndata: {"type":"message_stop"}\n\n',
];

describe('gateway processes', () => {
  it('take a call over from one that was killed in the middle of it', async () => {
    const sessionId = await createSession(bed.pool);
    const key = await mintKey(bed.pool, { sessionId });
    const [one, two] = await Promise.all([startProcess(), startProcess()]);
    const ask = (url: string): Promise<Response> =>
      post(
        `${url}/v1/messages`,
        key,
        { model: 'claude-opus-5', stream: true, messages: [] },
        { 'idempotency-key': `${sessionId}/0/0` },
      );
    upstream.answer = (_req, res) => res.writeHead(200, { 'content-type': 'text/event-stream' }).write(EVENTS[0]);
    const first = await ask(one.url);
    expect(first.status).toBe(200);
    upstream.answer = (_req, res) => res.writeHead(200, { 'content-type': 'text/event-stream' }).end(EVENTS.join(''));
    // The owner lives: nobody else may ask the provider.
    const second = ask(two.url);
    expect(upstream.requests).toHaveLength(1);
    await eventually(async () => {
      const noted = await bed.pool.query(`SELECT 1 FROM call_intents WHERE entry #>> '{usage,outputTokens}' = '1'`);
      return noted.rowCount === 1;
    });
    await kill(one.child);
    await expect(first.text()).rejects.toThrow();
    expect(await (await second).text()).toBe(EVENTS.join(''));
    expect(upstream.requests).toHaveLength(2);
    const calls = await bed.pool.query('SELECT state, attempts FROM model_calls');
    expect(calls.rows).toEqual([{ state: 'complete', attempts: 2 }]);
    // What the dead attempt had streamed is counted, by estimate, beside the one answer that was completed.
    const row = await eventually(async () =>
      (await ledgerRows(bed.pool)).find((found) => found['usage_basis'] === 'estimated'),
    );
    expect(row).toMatchObject({ call_key: `${sessionId}/0/0`, input_tokens: 20, output_tokens: 6 });
    expect(await ledgerRows(bed.pool)).toHaveLength(1);
    const third = await startProcess();
    const replayed = await ask(third.url);
    expect(replayed.headers.get('x-longhaul-replayed')).toBe('true');
    expect(await replayed.text()).toBe(EVENTS.join(''));
  });

  it('make an answer that others wait for when its maker was killed', async () => {
    const sessionId = await createSession(bed.pool);
    await bed.pool.query(
      `UPDATE sessions SET agent = '{"response_cache": {"ttl": "5m", "tool_calls": false}}' WHERE id = $1`,
      [sessionId],
    );
    const key = await mintKey(bed.pool, { sessionId });
    const [one, two] = await Promise.all([startProcess(), startProcess()]);
    const before = upstream.requests.length;
    const asked = (): number => upstream.requests.length - before;
    const ask = (url: string): Promise<Response> =>
      post(`${url}/v1/messages`, key, { model: 'claude-opus-5', max_tokens: 9, messages: [] });
    upstream.answer = () => undefined;
    const first = ask(one.url).catch((error: unknown) => error);
    await eventually(() => asked() === 1);
    const answer = {
      type: 'message',
      content: [{ type: 'text', text: 'made anew' }],
      stop_reason: 'end_turn',
      usage: {},
    };
    upstream.answer = (_req, res) =>
      res.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(answer));
    // Its lease is renewed while it lives: the others wait.
    const waiting = [ask(two.url), ask(two.url)];
    await eventually(async () => {
      const { rows } = await bed.pool.query<{ renewed: boolean }>(
        `SELECT lease_expires_at > created_at + interval '1500 ms' AS renewed FROM cached_answers WHERE state = 'in_flight'`,
      );
      return rows[0]?.renewed;
    });
    expect(asked()).toBe(1);
    await kill(one.child);
    expect(await first).toBeInstanceOf(Error);
    const answers = await Promise.all(waiting);
    expect(answers.map((response) => response.headers.get('x-cache')).toSorted((a) => (a === 'hit' ? -1 : 1))).toEqual([
      'hit',
      'miss',
    ]);
    expect(await answers[0]?.text()).toBe(JSON.stringify(answer));
    expect(asked()).toBe(2);
  }, 180_000);

  it('keep a call alive for longer than its lease', async () => {
    const sessionId = await createSession(bed.pool);
    const key = await mintKey(bed.pool, { sessionId });
    const [one, two] = await Promise.all([startProcess(), startProcess()]);
    const body = messagesRequest(scriptText([{ text: 'abcde', chunks: 5, chunkMs: 600 }]), { stream: true });
    const ask = async (url: string): Promise<string> =>
      (await post(`${url}/v1/messages`, key, body, { 'idempotency-key': `${sessionId}/0/0` })).text();
    const [here, there] = await Promise.all([ask(one.url), ask(two.url)]);
    expect(here).toBe(there);
    const counts = await fetch(`${one.url}/scripted/calls?session=${sessionId}`, { headers: { 'x-api-key': key } });
    expect(await counts.json()).toMatchObject({ data: [{ asked: 1, billed: 1 }] });
  });

  it('let running calls end when they are told to stop', async () => {
    const sessionId = await createSession(bed.pool);
    const key = await mintKey(bed.pool, { sessionId });
    const { child, url } = await startProcess();
    const body = messagesRequest(scriptText([{ text: 'abcd', chunks: 4, chunkMs: 150 }]), { stream: true });
    const response = await post(`${url}/v1/messages`, key, body, { 'idempotency-key': `${sessionId}/0/0` });
    const exited = new Promise<number | null>((resolve) => child.once('exit', resolve));
    child.kill('SIGTERM');
    expect(await response.text()).toContain('message_stop');
    expect(await exited).toBe(0);
    const row = await eventually(async () =>
      (await ledgerRows(bed.pool)).find((found) => found['session_id'] === sessionId),
    );
    expect(row).toMatchObject({ error: null });
  });

  it('bill a background response once, whoever of them was killed', async () => {
    const own = await createApiKey(bed.pool, { name: 'k', userId: 'background', teamId: 'team' });
    const usage = { input_tokens: 7, output_tokens: 3, total_tokens: 10 };
    const say = (status: string): void => {
      const body = { id: 'resp_killed', object: 'response', status, usage: status === 'completed' ? usage : null };
      upstream.answer = (_req, res) =>
        res.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(body));
    };
    say('queued');
    const env = { OPENAI_BASE_URL: `${upstream.url}/v1`, OPENAI_API_KEY: 'provider-key' };
    const dying = await startProcess(env);
    const body = { model: 'gpt-5', input: 'x', background: true };
    expect(await (await post(`${dying.url}/v1/responses`, own.key, body)).json()).toMatchObject({ status: 'queued' });
    await kill(dying.child);
    say('completed');
    const gateways = await Promise.all([startProcess(env), startProcess(env)]);
    const rows = (): Promise<Record<string, unknown>[]> =>
      ledgerRows(bed.pool).then((all) => all.filter((row) => row['user_id'] === 'background'));
    await eventually(async () => (await rows()).length > 0);
    const headers = { 'x-api-key': own.key };
    const asked = gateways.map(({ url }) => fetch(`${url}/v1/responses/resp_killed`, { headers }));
    for (const response of await Promise.all(asked)) expect(response.status).toBe(200);
    expect(await rows()).toMatchObject([{ input_tokens: 7, output_tokens: 3, usage_basis: 'reported' }]);
  });

  it('say whether they live and can work', async () => {
    const { url } = await startProcess();
    expect(await (await fetch(`${url}/healthz`)).json()).toEqual({ status: 'ok' });
    expect(await (await fetch(`${url}/readyz`)).json()).toEqual({ status: 'ready' });
    const key = await mintKey(bed.pool);
    await (await post(`${url}/v1/messages`, key, messagesRequest('hi'))).text();
    expect((await fetch(`${url}/metrics`)).status).toBe(401);
    expect((await fetch(`${url}/metrics`, { headers: { 'x-api-key': key } })).status).toBe(403);
    const own = await createApiKey(bed.pool, { name: 'ops', userId: 'user', teamId: 'team' });
    const metrics = await (await fetch(`${url}/metrics`, { headers: { 'x-api-key': own.key } })).text();
    expect(metrics).toContain('longhaul_gateway_calls_total{model="scripted",provider="scripted",outcome="ok"} 1');
    expect(metrics).toMatch(/longhaul_gateway_in_flight_calls 0/);
    expect((await fetch(`${url}/nothing`)).status).toBe(404);
  });
});
