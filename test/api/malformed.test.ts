import fc from 'fast-check';
import request from 'supertest';
import type { AddressInfo } from 'node:net';
import { connect } from 'node:net';
import { createServer, type Server } from 'node:http';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LIMITS } from '../../contracts/limits.ts';
import type { TestApi } from './support.ts';
import { makeAgent, makeSession, testApi } from './support.ts';

interface Operation {
  requestBody?: { content: { 'application/json': { schema: Schema } } };
  parameters?: { in: string; name: string }[];
}
interface Schema {
  $ref?: string;
  properties?: Record<string, unknown>;
}
interface Document {
  paths: Record<string, Record<string, Operation>>;
  components: { schemas: Record<string, Schema> };
}
interface Route {
  method: string;
  path: string;
  fields: string[];
  query: string[];
}

let api: TestApi;
/** One for all requests: a server of its own for each costs more than the request. */
let server: Server;
let ids: Record<string, string>;
/** Bodies that are taken as they are, so that a bad field meets the code behind the schema. */
let bases: Record<string, Record<string, unknown>>;
let routes: Route[];
beforeAll(async () => {
  api = await testApi({ temporalAddress: '127.0.0.1:1' });
  server = createServer(api.app);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { agentId, environmentId } = await makeAgent(api);
  const sessionId = await makeSession(api);
  const deployment = await api
    .post('/v1/deployments', {
      name: 'd',
      agent: agentId,
      environment_id: environmentId,
      initial_events: [{ type: 'user.message', content: 'go' }],
    })
    .expect(200);
  const limit = { amount: '100', currency: 'USD' };
  const route = { name: 'alias', deployments: [{ provider: 'scripted', model: 'scripted' }] };
  const rates = { input: '1', output: '2' };
  const budget = { name: 'b', scope: { type: 'label', id: 'x' }, period: 'month', hard_limit: limit };
  const price = { model: 'm', usd_per_million_tokens: rates };
  bases = {
    '/v1/agents': { name: 'a', model: 'scripted' },
    '/v1/environments': { name: 'e' },
    '/v1/sessions': { agent: agentId, environment_id: environmentId, budget: { type: 'limit', max_list_cost: limit } },
    '/v1/budgets': budget,
    '/v1/keys': { name: 'k' },
    '/v1/prices': price,
    '/v1/model-routes': route,
  };
  const idOf = async (path: string, body: object): Promise<string> =>
    (await api.post(path, body).expect(200)).body.id as string;
  ids = {
    budget_id: await idOf('/v1/budgets', budget),
    key_id: await idOf('/v1/keys', { name: 'k' }),
    price_id: await idOf('/v1/prices', price),
    model_route_id: await idOf('/v1/model-routes', { ...route, name: 'kept' }),
    agent_id: agentId,
    environment_id: environmentId,
    session_id: sessionId,
    deployment_id: deployment.body.id as string,
  };
  const document = (await request(server).get('/openapi.json').expect(200)).body as Document;
  routes = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => {
      const schema = operation.requestBody?.content['application/json']?.schema;
      const name = schema?.$ref?.split('/').at(-1);
      const properties = (name === undefined ? schema : document.components.schemas[name])?.properties ?? {};
      return {
        method,
        path,
        fields: Object.keys(properties),
        query: (operation.parameters ?? []).filter((item) => item.in === 'query').map((item) => item.name),
      };
    }),
  );
}, 120_000);
afterAll(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  await api.close();
});

const fill = (path: string) => path.replaceAll(/\{(\w+)\}/g, (_all, name: string) => ids[name] ?? `${name}_none`);

/** Whatever was sent, the answer is JSON with a request id and the fault is the client's. */
function expectClientError(answer: request.Response, what: string): void {
  expect(answer.status, `${what}: ${answer.text.slice(0, 300)}`).toBeGreaterThanOrEqual(400);
  expectNoServerError(answer, what);
}
function expectNoServerError(answer: request.Response, what: string): void {
  expect(answer.status, `${what}: ${answer.text.slice(0, 300)}`).toBeLessThan(500);
  if (answer.status >= 400) {
    expect(answer.body, what).toMatchObject({
      type: 'error',
      error: { code: expect.any(String), message: expect.any(String) },
    });
    expect(answer.headers['request-id']).toBe(answer.body.request_id);
  }
}
function send(method: string, path: string): request.Test {
  const agent = request(server);
  const test = method === 'get' ? agent.get(path) : method === 'delete' ? agent.delete(path) : agent.post(path);
  return test.set('authorization', `Bearer ${api.key}`);
}

const BODIES: [string, string][] = [
  ['null', 'null'],
  ['an array', '[]'],
  ['a number', '1'],
  ['a string', '"x"'],
  ['cut JSON', '{"name": '],
  ['no JSON', 'name=x'],
  ['deep nesting', `${'{"a":'.repeat(5_000)}1${'}'.repeat(5_000)}`],
  ['deep arrays', `{"name":${'['.repeat(20_000)}${']'.repeat(20_000)}}`],
  ['a prototype', '{"__proto__":{"polluted":true},"name":"x"}'],
  ['an unknown field', '{"definitely_not_a_field":1}'],
];
const VALUES: [string, string][] = [
  ['NUL', '"a\\u0000b"'],
  ['half a surrogate', '"\\ud800"'],
  ['a huge number', '1e400'],
  ['a big number', '123456789012345678901234567890'],
  ['a negative number', '-1'],
  ['an object', '{"x":{"y":[]}}'],
  ['an array of nulls', '[null]'],
  ['a boolean', 'true'],
  ['an empty string', '""'],
  ['a long string', `"${'x'.repeat(300_000)}"`],
  ['much money', '{"amount":"999999999999","currency":"USD"}'],
  ['a large budget', '{"type":"limit","max_list_cost":{"amount":"999999999999","currency":"USD"}}'],
  ['the last moment', '"9999-12-31T23:59:59.999Z"'],
  ['null', 'null'],
];

describe('every POST route', () => {
  it('refuses bodies that are not what it takes', async () => {
    for (const route of routes.filter((item) => item.method === 'post' && item.fields.length > 0)) {
      for (const [what, body] of BODIES) {
        const answer = await send('post', fill(route.path)).set('content-type', 'application/json').send(body);
        expectClientError(answer, `${route.path} with ${what}`);
      }
      const form = await send('post', fill(route.path)).set('content-type', 'text/plain').send('x=1');
      expect(form.status, route.path).toBe(415);
    }
    expect(({} as { polluted?: boolean }).polluted).toBeUndefined();
  });

  it('survives any value in any field', async () => {
    for (const route of routes.filter((item) => item.method === 'post')) {
      for (const field of route.fields) {
        for (const [what, value] of VALUES) {
          const answer = await send('post', fill(route.path))
            .set('content-type', 'application/json')
            .send(`{${JSON.stringify(field)}:${value}}`);
          expectNoServerError(answer, `${route.path} ${field} = ${what}`);
          const base = bases[route.path];
          if (base === undefined) continue;
          const others = JSON.stringify({ ...base, [field]: undefined }).slice(1, -1);
          const whole = await send('post', fill(route.path))
            .set('content-type', 'application/json')
            .send(`{${[others, `${JSON.stringify(field)}:${value}`].filter((part) => part !== '').join()}}`);
          expectNoServerError(whole, `${route.path} with ${field} = ${what}`);
        }
      }
    }
  }, 300_000);

  it('can list and read what it took', async () => {
    const lists = routes.filter((item) => item.method === 'get' && item.path.startsWith('/v1/'));
    for (const route of lists.filter((item) => !item.path.endsWith('/stream'))) {
      expectNoServerError(await send('get', fill(route.path)), route.path);
      if (!route.query.includes('limit')) continue;
      expectNoServerError(await send('get', `${fill(route.path)}?limit=1000`), route.path);
    }
  });

  it('survives arbitrary JSON', async () => {
    const posts = routes.filter((item) => item.method === 'post' && item.fields.length > 0);
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...posts),
        fc.jsonValue(),
        fc.infiniteStream(fc.jsonValue()),
        async (route, whole, stream) => {
          const fields = Object.fromEntries(route.fields.map((field) => [field, stream.next().value as unknown]));
          for (const body of [whole, fields]) {
            const answer = await send('post', fill(route.path))
              .set('content-type', 'application/json')
              .send(JSON.stringify(body));
            expectNoServerError(answer, `${route.path} ${JSON.stringify(body).slice(0, 500)}`);
          }
        },
      ),
      { numRuns: 60 },
    );
  });
});

describe('every route', () => {
  it('survives bad paths and queries, with and without a key', async () => {
    for (const route of routes) {
      if (route.path.endsWith('/stream')) continue;
      const hostile = ['%E0%A4%A', '%00', '..%2f..', 'x'.repeat(500), '%F0%9F%92%A9', "'; DROP TABLE agents; --"];
      if (route.path.includes('{')) {
        for (const value of hostile) {
          const path = route.path.replaceAll(/\{\w+\}/g, value);
          expectClientError(await send(route.method, encodeURI(decodeIfPossible(path))), path);
          expectClientError(await send(route.method, path.replaceAll(/[ ';]/g, '')), path);
        }
      }
      for (const name of [...route.query, 'nope', '__proto__', 'page']) {
        for (const value of [
          '%00',
          '%E0%A4%A',
          '-1',
          '1e9',
          '',
          'x'.repeat(2_000),
          '9999-99-99T99:99:99Z',
          '2026-02-30T00:00:00Z',
          '2026-01-01T00:00:00%2B23:59',
          'null',
        ]) {
          expectNoServerError(
            await send(route.method, `${fill(route.path)}?${encodeURIComponent(name)}=${value}`),
            `${route.path}?${name}=${value.slice(0, 40)}`,
          );
        }
      }
      if (route.path.startsWith('/v1/')) {
        const answer = await (route.method === 'get'
          ? request(server).get(fill(route.path))
          : route.method === 'delete'
            ? request(server).delete(fill(route.path))
            : request(server).post(fill(route.path)).send({}));
        // A link is its own key; a wrong one opens nothing.
        expect(answer.status, route.path).toBe(route.path.startsWith('/v1/file_links/') ? 404 : 401);
      }
    }
  });

  it('names the address of a provider that is none', async () => {
    for (const base_url of [
      'http://[::1',
      'http://',
      'ftp://x',
      'http://u:p@x',
      'http://x?y',
      'http://x:99999',
      '/x',
    ]) {
      const deployments = [{ provider: 'openai-compatible', model: 'm', base_url }];
      const answer = await api.post('/v1/model-routes', { name: 'x', deployments }).expect(400);
      expect(answer.body.error.field, base_url).toBe('deployments[0].base_url');
    }
  });

  it('says what is not there or not possible', async () => {
    expect((await send('get', '/v1/nothing')).body.error.code).toBe('route_not_found');
    expect((await send('get', '//')).status).toBe(404);
    const wrong = await request(server).put('/v1/agents').set('authorization', `Bearer ${api.key}`).send({});
    expect(wrong.status).toBe(405);
    expect(wrong.headers['allow']).toBe('POST, GET');
    const body = JSON.stringify({ name: 'x', model: 'm', system: 'y'.repeat(LIMITS.requestBodyBytes) });
    expect((await send('post', '/v1/agents').set('content-type', 'application/json').send(body)).status).toBe(413);
    const gzip = await send('post', '/v1/agents')
      .set('content-type', 'application/json')
      .set('content-encoding', 'br2')
      .send('{}');
    expect(gzip.status).toBe(415);
  });
});

it('answers broken HTTP without dying', async () => {
  const { port } = server.address() as AddressInfo;
  const raw = (text: string) =>
    new Promise<string>((resolve) => {
      let answer = '';
      const socket = connect(port, '127.0.0.1', () => socket.end(text));
      socket.on('data', (chunk) => (answer += chunk.toString()));
      socket.on('close', () => resolve(answer));
      socket.on('error', () => resolve(answer));
    });
  for (const line of [
    'GET // HTTP/1.1',
    'GET http:// HTTP/1.1',
    'GET * HTTP/1.1',
    'GET /%E0%A4%A HTTP/1.1',
    'GET /v1/agents/%E0%A4%A HTTP/1.1',
    'POST /v1/agents?%%% HTTP/1.1',
  ]) {
    const answer = await raw(`${line}\r\nhost: x\r\nconnection: close\r\n\r\n`);
    expect(answer, line).toMatch(/^HTTP\/1\.1 4\d\d/);
  }
  await raw('POST /v1/agents HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"na');
  const health = await fetch(`http://127.0.0.1:${port}/healthz`);
  expect(health.status).toBe(200);
});

function decodeIfPossible(path: string): string {
  try {
    return decodeURI(path);
  } catch {
    return path;
  }
}
