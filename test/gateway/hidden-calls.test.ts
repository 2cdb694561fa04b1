import request from 'supertest';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { testApi, type TestApi } from '../api/support.ts';
import { startGatewayProcess, type GatewayProcess } from './gateway-process.ts';
import { mintKey, openTestBed, type TestBed } from './support.ts';

const WAIT_MS = 120_000;

let bed: TestBed;
let api: TestApi;
let gateway: GatewayProcess;
let key: string;
beforeAll(async () => {
  bed = await openTestBed();
  api = await testApi();
  gateway = await startGatewayProcess({ DATABASE_URL: bed.databaseUrl, LONGHAUL_SCRIPTED: '1' });
  key = await mintKey(bed.pool);
}, WAIT_MS);
afterAll(async () => {
  await gateway.stop();
  await api.close();
  await bed.close();
}, WAIT_MS);

/** What harnesses ask beside their loop, by harness: method, path, body, and what they get. */
const BESIDE: [string, 'GET' | 'HEAD' | 'POST', string, object | undefined, number][] = [
  ['claude-code', 'HEAD', '/', undefined, 404],
  ['claude-code', 'GET', '/v1/models?limit=1000', undefined, 200],
  ['claude-code', 'POST', '/v1/messages/count_tokens?beta=true', { model: 'scripted', messages: [] }, 200],
  ['claude-code', 'POST', '/api/event_logging/batch', { events: [] }, 404],
  ['claude-code', 'GET', '/api/claude_code/organizations/metrics_enabled', undefined, 404],
  ['codex', 'GET', '/v1/models?client_version=0.169.0', undefined, 200],
  ['codex', 'GET', '/v1/responses', undefined, 405],
  ['codex', 'POST', '/v1/responses/compact', { model: 'scripted', input: [] }, 404],
  ['codex', 'POST', '/v1/alpha/search', {}, 404],
  ['copilot', 'GET', '/models', undefined, 200],
  ['copilot', 'GET', '/v1/models/scripted', undefined, 200],
  ['copilot', 'POST', '/v1/embeddings', { model: 'scripted', input: 'x' }, 404],
  ['gemini', 'GET', '/v1beta/models', undefined, 200],
  ['gemini', 'GET', '/v1beta/models/scripted', undefined, 200],
  ['gemini', 'POST', '/v1beta/models/scripted:countTokens', { contents: [] }, 200],
  ['gemini', 'POST', '/v1beta/models/scripted:embedContent', {}, 404],
  ['gemini', 'POST', '/v1beta/cachedContents', {}, 404],
  ['gemini', 'POST', '/v1internal:loadCodeAssist', {}, 404],
];

describe('what harnesses ask beside their loop', () => {
  it.each(BESIDE)(
    '%s: %s %s',
    async (_harness, method, path, body, status) => {
      const headers = { 'x-api-key': key, 'content-type': 'application/json' };
      const answer = await fetch(gateway.url + path, {
        method,
        headers,
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      expect(answer.status).toBe(status);
      const text = await answer.text();
      if (method === 'HEAD') expect(text).toBe('');
      else if (status >= 400) {
        const { type, error } = JSON.parse(text) as { type?: string; error: Record<string, unknown> };
        expect(error['message']).toEqual(expect.any(String));
        // Google's clients read a number; the other vendors' know ours by its text.
        if (path.startsWith('/v1beta/')) expect(error).toMatchObject({ code: 404, status: 'NOT_FOUND' });
        else expect(type ?? error['type']).toEqual(expect.any(String));
      } else expect(JSON.parse(text)).toEqual(expect.any(Object));
    },
    WAIT_MS,
  );

  it(
    'is refused cleanly by the api, too, where both are one process',
    async () => {
      for (const [, method, path, body, status] of BESIDE) {
        // The gateway's own paths never come that far.
        if (status !== 404 || path.startsWith('/v1beta/')) continue;
        const verb = method.toLowerCase() as 'get' | 'head' | 'post';
        const asked = request(api.app)[verb](path).set('x-api-key', key);
        const answer = await (body === undefined ? asked : asked.send(body));
        expect([path, answer.status < 500, answer.status >= 400]).toEqual([path, true, true]);
        expect(answer.headers['content-type']).toContain('application/json');
      }
    },
    WAIT_MS,
  );

  it(
    'never has a key from an address repeated',
    async () => {
      const answer = await fetch(`${gateway.url}/v1internal:x?key=secret-in-the-address`);
      expect(answer.status).toBe(404);
      expect(await answer.text()).not.toContain('secret-in-the-address');
    },
    WAIT_MS,
  );
});
