import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import http, { type IncomingHttpHeaders, type IncomingMessage } from 'node:http';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createSandboxProviders } from '../../activities/sandbox/index.ts';
import type { SandboxProvider, SandboxRef } from '../../activities/sandbox/port.ts';
import { PORT_TOKEN_HEADER, PORT_TOKEN_PARAMETER } from '../../contracts/port-links.ts';
import { PortsServer } from '../../egress/ports/server.ts';
import { createLogger } from '../../telemetry/logger.ts';
import { type TestApi, testApi } from '../api/support.ts';
import { smallSpec, soon, until } from '../support/sandbox-commands.ts';

/** Answers with the request it got; a WebSocket gets its head and then everything back. */
const SERVER = `
import http from 'node:http';
const server = http.createServer((req, res) => {
  if (req.url === '/hold') { res.write('held'); return; }
  const sets = req.url === '/cookies' ? { 'set-cookie': ['a=1; Domain=localhost; Path=/', 'longhaul_port=mine'] } : {};
  const moves = req.url === '/moves' ? { location: 'http://localhost:8377/there' } : {};
  let body = '';
  req.on('data', (piece) => (body += piece));
  req.on('end', () => {
    res.writeHead(moves.location ? 302 : 200, { 'content-type': 'application/json', ...sets, ...moves });
    res.end(JSON.stringify({ method: req.method, url: req.url, headers: req.headers, body }));
  });
});
server.on('upgrade', (req, socket) => {
  socket.write('HTTP/1.1 101 Switching Protocols\\r\\nConnection: Upgrade\\r\\nUpgrade: websocket\\r\\n\\r\\n');
  socket.write(JSON.stringify(req.headers) + '\\n');
  socket.pipe(socket);
});
server.listen(8377, '127.0.0.1');
`;

interface Answer {
  status: number;
  headers: IncomingHttpHeaders;
  text: string;
}
interface Seen {
  method: string;
  url: string;
  headers: IncomingHttpHeaders;
  body: string;
}
interface Opened {
  id: string;
  origin: string;
  url: string;
}

const seenBy = (answer: Answer): Seen => JSON.parse(answer.text) as Seen;
/** The token alone. */
const tokenOf = (opened: Opened): string => new URL(opened.url).searchParams.get(PORT_TOKEN_PARAMETER) ?? '';
const withToken = (opened: Opened): Record<string, string> => ({ [PORT_TOKEN_HEADER]: tokenOf(opened) });

describe('ports of a sandbox', { timeout: 180_000 }, () => {
  let api: TestApi;
  let rootDir: string;
  let provider: SandboxProvider;
  let ref: SandboxRef;
  let server: PortsServer;
  let port: number;

  /** `to`: a URL whose host name is sent, and not resolved. */
  const ask = async (to: string, headers: Record<string, string> = {}, body?: string): Promise<Answer> => {
    const url = new URL(to);
    const req = http.request({
      port,
      host: '127.0.0.1',
      method: body === undefined ? 'GET' : 'POST',
      path: `${url.pathname}${url.search}`,
      headers: { host: url.host, ...headers },
    });
    req.end(body);
    const [res] = (await once(req, 'response')) as [IncomingMessage];
    let text = '';
    for await (const piece of res) text += String(piece);
    return { status: res.statusCode ?? 0, headers: res.headers, text };
  };
  const session = async (id: string): Promise<string> => {
    const agent = (await api.post('/v1/agents', { name: id, model: 'scripted' }).expect(200)).body as { id: string };
    const environment = (await api.post('/v1/environments', { name: id }).expect(200)).body as { id: string };
    const made = await api.post('/v1/sessions', { agent: agent.id, environment_id: environment.id }).expect(200);
    return (made.body as { id: string }).id;
  };
  const open = async (sessionId: string, body: object = { port: 8377 }): Promise<Opened> =>
    (await api.post(`/v1/sessions/${sessionId}/ports`, body).expect(200)).body as Opened;
  const place = async (sessionId: string, generation: number): Promise<void> => {
    await api.pool.query(
      `INSERT INTO sandboxes (id, session_id, generation, provider, state, lease_expires_at, egress_point)
       VALUES ($1, $2, $3, 'local', 'running', now() + interval '1 hour', $4)`,
      [
        `sbx_${sessionId}_${generation}`,
        sessionId,
        generation,
        JSON.stringify(await provider.egressPoint(ref, soon())),
      ],
    );
  };

  const statusOf = async (each: Opened): Promise<number> => (await ask(`${each.origin}/x`, withToken(each))).status;

  let sessionId: string;
  beforeAll(async () => {
    api = await testApi();
    rootDir = mkdtempSync(path.join(os.tmpdir(), 'longhaul-ports-'));
    const logger = createLogger('test', 'silent');
    const made = createSandboxProviders({ rootDir, logger })['local'];
    if (made === undefined) throw new Error('there is no local provider');
    provider = made;
    ref = await provider.create(smallSpec('ports', { memoryBytes: 512 * 1024 * 1024 }), 'ports', soon());
    await provider.writeFile(ref, '/workspace/server.mjs', Buffer.from(SERVER), soon());
    const start = { execId: 'server', argv: [process.execPath, 'server.mjs'], timeoutMs: 600_000 };
    await provider.execStart(ref, start, soon());
    server = new PortsServer({ db: api.pool, url: api.services.config.portsUrl, logger });
    port = await server.listen(0, '127.0.0.1');
    sessionId = await session('first');
    await place(sessionId, 1);
    const opened = await open(sessionId);
    await until('the program listens', async () => (await ask(opened.origin, withToken(opened))).status === 200);
  });
  afterAll(async () => {
    await server.close();
    await provider.destroy(ref, soon());
    rmSync(rootDir, { recursive: true, force: true });
    await api.close();
  });

  it('shows the link once and keeps only a hash', async () => {
    const send = () =>
      api.post(`/v1/sessions/${sessionId}/ports`, { port: 8377, ttl_seconds: 60 }).set('idempotency-key', 'open-port');
    const first = (await send().expect(200)).body as Opened;
    expect(((await send().expect(200)).body as { url: null }).url).toBeNull();
    expect(first.url).toMatch(/^http:\/\/[0-9a-z]{26}\.localhost:4881\/\?longhaul_port_token=[\w-]{32}$/);
    const list = (await api.get(`/v1/sessions/${sessionId}/ports`).expect(200)).body as { data: { id: string }[] };
    expect(list.data.map((each) => each.id)).toContain(first.id);
    expect(JSON.stringify(list)).not.toContain(tokenOf(first));
    for (const table of ['session_ports', 'idempotency_keys', 'audit', 'events']) {
      const { rows } = await api.pool.query(`SELECT 1 FROM ${table} AS t WHERE t::text LIKE '%' || $1 || '%'`, [
        tokenOf(first),
      ]);
      expect([table, rows]).toEqual([table, []]);
    }
  });

  it('refuses what is out of bounds, and what belongs to another team', async () => {
    for (const body of [{ port: 0 }, { port: 65_536 }, { port: 80, ttl_seconds: 59 }, { port: 80, ttl_seconds: 1e9 }]) {
      await api.post(`/v1/sessions/${sessionId}/ports`, body).expect(400);
    }
    const other = { authorization: `Bearer ${api.otherKey}` };
    await api.post(`/v1/sessions/${sessionId}/ports`, { port: 80 }).set(other).expect(404);
    await api.get(`/v1/sessions/${sessionId}/ports`).set(other).expect(404);
    const crowded = await session('crowded');
    for (let count = 0; count < 20; count += 1) await open(crowded, { port: 1_000 + count });
    await api.post(`/v1/sessions/${crowded}/ports`, { port: 2_000 }).expect(400);
  });

  it('serves the program to a browser: the link becomes a cookie', async () => {
    const opened = await open(sessionId);
    const welcome = await ask(`${opened.url}&q=1`);
    expect(welcome.status).toBe(302);
    expect(welcome.headers.location).toBe('/?q=1');
    const [cookie = ''] = welcome.headers['set-cookie'] ?? [];
    expect(cookie).toMatch(/^longhaul_port=[\w-]{32}; Path=\/; Max-Age=\d+; HttpOnly; SameSite=Lax$/);
    const pair = cookie.split(';')[0] ?? '';
    const visit = await ask(`${opened.origin}/a//b%2Fc?x=%20y`, { cookie: `theirs=1; ${pair}; more=2` });
    expect(visit.status).toBe(200);
    expect(seenBy(visit)).toMatchObject({ url: '/a//b%2Fc?x=%20y', headers: { cookie: 'theirs=1; more=2' } });
    expect(visit.text).not.toContain(tokenOf(opened));
  });

  it('passes nothing of ours on, and nothing the visitor claims about itself', async () => {
    const opened = await open(sessionId);
    const answer = await ask(
      `${opened.origin}/echo`,
      {
        ...withToken(opened),
        authorization: `Bearer ${api.key}`,
        'x-forwarded-for': '10.0.0.1',
        'x-forwarded-host': 'evil.example',
        connection: 'x-secret-hop',
        'x-secret-hop': 'hop',
        origin: opened.origin,
        referer: opened.url,
        'x-own': 'kept',
      },
      'the body',
    );
    const { method, headers, body } = seenBy(answer);
    expect([method, body]).toEqual(['POST', 'the body']);
    expect(headers).toMatchObject({
      host: 'localhost:8377',
      origin: 'http://localhost:8377',
      'x-own': 'kept',
      'x-forwarded-host': new URL(opened.origin).host,
      'x-forwarded-proto': 'http',
    });
    for (const name of ['authorization', 'x-forwarded-for', 'x-secret-hop', 'referer', PORT_TOKEN_HEADER]) {
      expect(headers).not.toHaveProperty(name);
    }
    expect(answer.text).not.toContain(tokenOf(opened));
    expect(answer.text).not.toContain(api.key);
    const own = await ask(`${opened.origin}/echo`, { ...withToken(opened), authorization: 'Bearer of-the-program' });
    expect(seenBy(own).headers.authorization).toBe('Bearer of-the-program');
  });

  it('keeps cookies and redirects of the program to its own origin', async () => {
    const opened = await open(sessionId);
    const cookies = await ask(`${opened.origin}/cookies`, withToken(opened));
    expect(cookies.headers['set-cookie']).toEqual(['a=1; Path=/']);
    const moved = await ask(`${opened.origin}/moves`, withToken(opened));
    expect(moved.headers.location).toBe(`${opened.origin}/there`);
    const slashes = await ask(`${opened.origin}//evil.example/?${new URL(opened.url).searchParams.toString()}`);
    expect(slashes.headers.location).toBe('/evil.example/');
  });

  it('takes its cookie from its own pages only: the origins of all ports are one site to a browser', async () => {
    const [opened, other] = [await open(sessionId), await open(sessionId)];
    const cookie = `longhaul_port=${tokenOf(opened)}`;
    const statusFor = async (headers: Record<string, string>, body?: string): Promise<number> =>
      (await ask(`${opened.origin}/echo`, { cookie, ...headers }, body)).status;
    expect(await statusFor({ origin: other.origin }, 'x')).toBe(403);
    expect(await statusFor({ 'sec-fetch-site': 'same-site', 'sec-fetch-mode': 'no-cors' })).toBe(403);
    expect(await statusFor({ 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'navigate' }, 'x')).toBe(403);
    expect(await statusFor({ 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'navigate' })).toBe(200);
    expect(await statusFor({ 'sec-fetch-site': 'same-origin', origin: 'null' }, 'x')).toBe(200);
    expect(await statusFor({ origin: opened.origin }, 'x')).toBe(200);
  });

  it('opens for no other host name and no other token', async () => {
    const [opened, other] = [await open(sessionId), await open(sessionId)];
    const { host } = new URL(opened.origin);
    const label = host.split('.')[0] ?? '';
    for (const name of ['localhost:4881', '127.0.0.1', `${label}.evil.example`, `${label}.localhost`, label, 'x', '']) {
      expect([name, (await ask(opened.origin, { ...withToken(opened), host: name })).status]).toEqual([name, 404]);
    }
    expect((await ask(opened.origin)).status).toBe(401);
    expect((await ask(opened.origin, withToken(other))).status).toBe(401);
    expect((await ask(opened.origin, { [PORT_TOKEN_HEADER]: 'x'.repeat(32) })).status).toBe(401);
    expect((await ask(opened.origin, { host: host.toUpperCase(), ...withToken(opened) })).status).toBe(200);
  });

  it('passes WebSockets on, both ways', async () => {
    const opened = await open(sessionId);
    const upgrade = async (headers: string): Promise<{ socket: net.Socket; read: () => Promise<string> }> => {
      const socket = net.connect(port, '127.0.0.1');
      const pieces = socket[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
      const { host } = new URL(opened.origin);
      const own = `Host: ${host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n`;
      socket.write(`GET /socket HTTP/1.1\r\n${own}${headers}\r\n`);
      return { socket, read: async () => String((await pieces.next()).value ?? '') };
    };
    const refused = await upgrade('');
    expect(await refused.read()).toMatch(/^HTTP\/1\.1 401 /);
    refused.socket.destroy();
    const { socket, read } = await upgrade(
      `Cookie: longhaul_port=${tokenOf(opened)}; b=2\r\nOrigin: ${opened.origin}\r\n`,
    );
    let text = '';
    while (!text.includes('}\n')) text += await read();
    expect(text).toMatch(/^HTTP\/1\.1 101 /);
    expect(text).toContain('"cookie":"b=2"');
    expect(text).toContain('"host":"localhost:8377","');
    expect(text).toContain('"origin":"http://localhost:8377"');
    expect(text).not.toContain(tokenOf(opened));
    socket.write('ping');
    expect(await read()).toBe('ping');
    const closed = once(socket, 'close');
    await api.delete(`/v1/sessions/${sessionId}/ports/${opened.id}`).expect(200);
    await closed;
  });

  it('ends when it is closed, when its time is over, and with the session', async () => {
    const ended = await session('ended');
    await place(ended, 1);
    const [closed, late, last] = [await open(ended), await open(ended), await open(ended)];
    for (const each of [closed, late, last]) expect(await statusOf(each)).toBe(200);
    await api.delete(`/v1/sessions/${ended}/ports/${closed.id}`).expect(200);
    await api.delete(`/v1/sessions/${ended}/ports/${closed.id}`).expect(200);
    await api.pool.query(`UPDATE session_ports SET expires_at = now() WHERE id = $1`, [late.id]);
    for (const each of [closed, late]) await until('it is closed', async () => (await statusOf(each)) === 410);
    await api.pool.query(`UPDATE sandboxes SET state = 'paused', egress_point = NULL WHERE session_id = $1`, [ended]);
    await until('the sandbox is not reached', async () => (await statusOf(last)) === 503);
    await api.pool.query(`UPDATE sessions SET status = 'terminated' WHERE id = $1`, [ended]);
    await until('the session is over', async () => (await statusOf(last)) === 410);
    await api.post(`/v1/sessions/${ended}/ports`, { port: 80 }).expect(409);
    const list = (await api.get(`/v1/sessions/${ended}/ports`).expect(200)).body as { data: unknown[] };
    expect(list.data).toEqual([]);
  });

  it('says so when nothing listens, and survives a program that hangs up', async () => {
    const nobody = await open(sessionId, { port: 8_378 });
    expect((await ask(nobody.origin, withToken(nobody))).status).toBe(503);
    const opened = await open(sessionId);
    const req = http.request({
      port,
      host: '127.0.0.1',
      path: '/hold',
      headers: { host: new URL(opened.origin).host, ...withToken(opened) },
    });
    req.end();
    const [res] = (await once(req, 'response')) as [IncomingMessage];
    const broken = once(res, 'error').catch((error: unknown) => error);
    res.resume();
    await provider.execKill(ref, 'server', soon());
    await broken;
    expect((await ask(opened.origin, withToken(opened))).status).toBe(503);
  });
});
