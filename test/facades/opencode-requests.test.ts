import { createServer, type Server } from 'node:http';
import request from 'supertest';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { OPENCODE_ROUTES } from '../../api/opencode/routes.ts';
import { makeSession, testApi, type TestApi } from '../api/support.ts';

let api: TestApi;
let server: Server;
let sessionId: string;

beforeAll(async () => {
  api = await testApi();
  server = createServer(api.app);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  sessionId = await makeSession(api);
});

afterAll(async () => {
  await new Promise((resolve) => server.close(resolve));
  await api.close();
});

type Sent = request.Test;

function send(method: string, path: string, key = api.key): Sent {
  const agent = request(server) as unknown as Record<string, (path: string) => Sent>;
  return agent[method]!(`/opencode${path}`).set('authorization', `Bearer ${key}`);
}

const filled = (path: string, id: string): string => path.replaceAll(/:\w+/g, id);
const routes = OPENCODE_ROUTES.map(([method, path]) => ({ method, path }));
const streams = ['/event', '/global/event'];
const answering = routes.filter(({ path }) => !streams.includes(path));

const BAD_BODIES: [string, string, string][] = [
  ['no JSON', '{', 'application/json'],
  ['a list', '[]', 'application/json'],
  ['a number', '1', 'application/json'],
  [
    'wrong types',
    '{"parts":1,"title":{},"reply":7,"response":[],"agent":[],"model":"x","time":"y"}',
    'application/json',
  ],
  [
    'NUL',
    '{"title":"a\\u0000b","parts":[{"type":"text","text":"\\u0000"}],"reply":"\\u0000","response":"x"}',
    'application/json',
  ],
  [
    'half a surrogate pair',
    '{"title":"\\ud800","agent":"\\ud800","parts":[{"type":"text","text":"\\ud800"}]}',
    'application/json',
  ],
  [
    'unknown parts',
    '{"parts":[{"type":"file","mime":"image/png","url":"file:///etc/passwd"},{"type":"x"}]}',
    'application/json',
  ],
  ['deep nesting', `${'{"a":'.repeat(200)}1${'}'.repeat(200)}`, 'application/json'],
];

describe('requests of OpenCode clients that are wrong', () => {
  it.each(routes)('$method $path wants a key', async ({ method, path }) => {
    const agent = request(server) as unknown as Record<string, (path: string) => Sent>;
    const none = await agent[method]!(`/opencode${filled(path, sessionId)}`);
    expect([none.status, none.type]).toEqual([401, 'application/json']);
    const basic = `Basic ${Buffer.from('opencode:wrong key').toString('base64')}`;
    const wrong = await agent[method]!(`/opencode${filled(path, sessionId)}`).set('authorization', basic);
    expect([wrong.status, wrong.type]).toEqual([401, 'application/json']);
  });

  it.each(answering)('$method $path never answers with 5xx', async ({ method, path }) => {
    // Of its own: one of the routes ends it.
    const own = await makeSession(api);
    const ids = ['x'.repeat(500), '%00', '..%2f', 'appr_00000000000000000000000000', own];
    for (const id of path.includes(':') ? ids : ['']) {
      for (const query of ['', '?limit=x&start=-1', '?limit=%00', '?directory=%ff&search=%ed%a0%80']) {
        const answer = await send(method, `${filled(path, id)}${query}`);
        expect([path, id, query, answer.status < 500]).toEqual([path, id, query, true]);
        if (answer.status !== 204) expect(answer.type).toBe('application/json');
      }
    }
  });

  const writing = answering.filter(({ method }) => method === 'post' || method === 'patch');
  it.each(writing)('$method $path refuses bodies that are wrong', async ({ method, path }) => {
    const own = await makeSession(api);
    for (const [what, body, type] of BAD_BODIES) {
      const answer = await send(method, filled(path, own)).set('content-type', type).send(body);
      expect([path, what, answer.status < 500]).toEqual([path, what, true]);
      if (answer.status !== 204) expect(answer.type).toBe('application/json');
    }
  });

  it.each([
    ['a prompt without parts', 'post', '/message', {}, 'parts'],
    ['a prompt of no text', 'post', '/prompt_async', { parts: [{ type: 'text', text: '' }] }, 'text'],
    ['a file on the disk of the client', 'post', '/message', fileOf('file:///a'), 'parts[0].url'],
    ['another agent', 'post', '/message', { parts: [{ type: 'agent', name: 'x' }] }, 'parts[0].type'],
    ['a message that starts no turn', 'post', '/message', { ...text('x'), noReply: true }, 'noReply'],
    ['a system prompt', 'post', '/message', { ...text('x'), system: 'Be rude.' }, 'system'],
    ['rules of its own', 'patch', '', { permission: [{ permission: 'bash', action: 'allow' }] }, 'permission'],
  ] as const)('%s is refused by name', async (_what, method, route, body, field) => {
    const answer = await send(method, `/session/${sessionId}${route}`).send(body);
    expect(answer.status).toBe(400);
    expect(JSON.stringify(answer.body)).toContain(field);
  });

  it('refuses a place in the stream that is none', async () => {
    for (const path of streams) {
      const answer = await send('get', path).set('last-event-id', 'yesterday');
      expect([answer.status, answer.type]).toEqual([400, 'application/json']);
    }
  });

  it.each(['/', '/nothing', '/session/x/y/z', '/api/zzz'])('%s is not found, as JSON', async (path) => {
    const answer = await send('get', path);
    expect([answer.status, answer.type]).toEqual([404, 'application/json']);
    expect(answer.body).toMatchObject({ name: 'NotFoundError', error: { code: 'route_not_found' } });
    expect((await send('delete', '/session')).status).toBe(405);
  });

  it('shows nothing to another team', async () => {
    const other = (method: string, path: string): Sent => send(method, path, api.otherKey);
    expect((await other('get', '/session')).body).toEqual([]);
    expect((await other('get', '/agent')).body).toEqual([]);
    expect((await other('get', '/permission')).body).toEqual([]);
    for (const { method, path } of answering.filter((route) => route.path.startsWith('/session/:'))) {
      const answer = await other(method, filled(path, sessionId));
      expect([path, [400, 404].includes(answer.status)]).toEqual([path, true]);
    }
    expect((await send('get', `/session/${sessionId}`)).body).toMatchObject({ id: sessionId });
  });

  it('answers the routes of the lite client', async () => {
    expect((await send('get', '/whoami')).body).toEqual({ ok: true, auth: 'required' });
    expect((await send('get', '/agents')).body[0]).toMatchObject({ name: 'Helper', base_agent: 'native' });
    expect((await send('get', '/v1/models')).body).toMatchObject({ object: 'list', data: [{ id: 'scripted' }] });
    const made = await send('post', '/session').send({ harness: 'native' });
    expect(made.body).toMatchObject({ agent: 'Helper', harness: 'native' });
    expect((await send('post', '/session').send({ agent: 'native' })).body).toMatchObject({ agent: 'Helper' });
    expect((await send('post', '/session').send({ harness: 'codex' })).status).toBe(404);
  });
});

function text(value: string): { parts: object[] } {
  return { parts: [{ type: 'text', text: value }] };
}

function fileOf(url: string): { parts: object[] } {
  return { parts: [{ type: 'file', mime: 'text/plain', url }] };
}
