import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { readE2bConfig } from '../../activities/sandbox/e2b/config.ts';
import { E2bProvider } from '../../activities/sandbox/e2b/provider.ts';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { shell, smallSpec, soon, until } from '../support/sandbox-commands.ts';
import { makeE2bBed, type E2bBed } from '../support/e2b-server.ts';

const ref = { provider: 'e2b', id: 'abc', meta: {} };

async function errorOf(work: Promise<unknown>): Promise<LonghaulError> {
  try {
    await work;
  } catch (error) {
    if (error instanceof LonghaulError) return error;
    throw error;
  }
  throw new Error('there was no error');
}

describe('a control plane that refuses', () => {
  let answer: { status: number; headers?: Record<string, string> };
  let asked = 0;
  let server: Server;
  let provider: E2bProvider;

  beforeAll(async () => {
    server = createServer((req, res) => {
      asked += 1;
      req.resume();
      res.writeHead(answer.status, { 'content-type': 'application/json', ...answer.headers });
      res.end(JSON.stringify({ code: answer.status, message: 'as it says' }));
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    provider = new E2bProvider({ apiKey: 'secret-key', apiUrl: url, sandboxUrl: url });
  });

  afterEach(() => {
    asked = 0;
  });

  afterAll(() => {
    server.close();
    server.closeAllConnections();
  });

  it.each([
    [400, 'sandbox_invalid', false],
    [401, 'sandbox_auth', false],
    [403, 'sandbox_auth', false],
    [404, 'sandbox_not_found', false],
    [409, 'sandbox_busy', true],
    [429, 'sandbox_busy', true],
    [500, 'sandbox_unavailable', true],
    [502, 'sandbox_unavailable', true],
    [503, 'sandbox_busy', true],
    [507, 'sandbox_quota', false],
  ])('%i is %s', async (status, code, retryable) => {
    answer = { status };
    const calls = [() => provider.extend(ref, 1_000, soon()), () => provider.create(smallSpec('owner'), 'key', soon())];
    for (const call of calls) {
      const error = await errorOf(call());
      expect([error.code, error.retryable]).toEqual([code, retryable]);
      expect(error.message).not.toContain('secret-key');
    }
  });

  it('waits as long as it is told to before it asks again', async () => {
    answer = { status: 429, headers: { 'retry-after': '0' } };
    const error = await errorOf(provider.extend(ref, 1_000, soon()));
    expect(asked).toBeGreaterThan(1);
    expect(error.retryAfterMs).toBeGreaterThan(0);
  });

  it('tells one that is away, and a caller that gave up', async () => {
    const away = new E2bProvider({ apiKey: 'x', apiUrl: 'http://127.0.0.1:9', sandboxUrl: 'http://127.0.0.1:9' });
    expect((await errorOf(away.extend(ref, 1_000, soon()))).code).toBe('sandbox_unavailable');
    const given = AbortSignal.abort(new Error('given up'));
    await expect(provider.extend(ref, 1_000, given)).rejects.toThrow('given up');
  });
});

it('says what to install when the SDK is not there', async () => {
  const provider = new E2bProvider({ apiKey: 'x', package: 'e2b-that-is-not-installed' });
  const error = await errorOf(provider.extend(ref, 1_000, soon()));
  expect([error.code, error.message]).toEqual([
    'setup_required',
    'sandboxes at E2B need its SDK: run `npm install e2b-that-is-not-installed`',
  ]);
});

it('is configured by E2B’s own variables', () => {
  expect(readE2bConfig({ E2B_API_URL: 'http://x' })).toBeUndefined();
  expect(readE2bConfig({ E2B_API_KEY: '' })).toBeUndefined();
  expect(readE2bConfig({ E2B_API_KEY: 'k', E2B_DOMAIN: 'd', E2B_API_URL: '', LONGHAUL_E2B_TEMPLATE: 't' })).toEqual({
    apiKey: 'k',
    domain: 'd',
    template: 't',
  });
});

describe('against the shipped server', () => {
  let bed: E2bBed;
  let provider: E2bProvider;
  const another = (): E2bProvider =>
    new E2bProvider({ apiKey: bed.apiKey, apiUrl: bed.server.url, sandboxUrl: bed.server.url });

  beforeAll(async () => {
    bed = await makeE2bBed();
    provider = another();
  });

  afterAll(async () => {
    await bed.close();
  });

  /** The rules as the server has them. */
  async function shown(id: string): Promise<unknown> {
    const answer = await fetch(`${bed.server.url}/sandboxes/${id}`, { headers: { 'x-api-key': bed.apiKey } });
    return ((await answer.json()) as { network: unknown }).network;
  }

  it('agrees on one sandbox with every other worker that asks under the same key', async () => {
    const spec = smallSpec('racing');
    const refs = await Promise.all([1, 2, 3, 4].map(() => another().create(spec, 'one', soon())));
    expect(new Set(refs.map((each) => each.id)).size).toBe(1);
    const found: string[] = [];
    for await (const info of provider.list('racing', soon())) found.push(info.ref.id);
    expect(found).toEqual([refs[0]?.id]);
    await provider.destroy(refs[0] ?? ref, soon());
  });

  it('asks for networks in E2B’s own words', async () => {
    const network = { type: 'native' as const, allowedHosts: ['example.com', '*.example.org'] };
    const made = await provider.create(smallSpec('network', { network }), 'native', soon());
    expect(await shown(made.id)).toEqual({ allowOut: ['example.com', '*.example.org'], denyOut: ['0.0.0.0/0'] });
    await provider.setNetwork(made, { type: 'broker', proxy: { host: 'proxy.example.com', port: 3128 } }, soon());
    expect(await shown(made.id)).toEqual({ allowOut: ['proxy.example.com'], denyOut: ['0.0.0.0/0'] });
    await provider.setNetwork(made, { type: 'none' }, soon());
    expect(await shown(made.id)).toEqual({});
    const inside = provider.setNetwork(made, { type: 'broker', proxy: null }, soon());
    expect((await errorOf(inside)).code).toBe('sandbox_unsupported');
    await provider.destroy(made, soon());
  });

  it('does not wake a sandbox by looking at it, and keeps it when its lease runs out', async () => {
    const made = await provider.create(smallSpec('sleeper'), 'sleeper', soon());
    await shell(provider, made, 'echo kept > kept');
    await provider.extend(made, 1_000, soon());
    await until('it is paused', async () => (await provider.get(made, soon()))?.state === 'paused');
    const heir = another();
    const poll = heir.execPoll(made, 'any', { out: 0, err: 0 }, 0, soon());
    expect((await errorOf(poll)).code).toBe('sandbox_lost');
    expect((await errorOf(heir.stat(made, '/workspace/kept', soon()))).code).toBe('sandbox_lost');
    expect((await provider.get(made, soon()))?.state).toBe('paused');
    expect(await heir.resume(made, soon())).toBe(true);
    await heir.extend(made, 600_000, soon());
    expect((await shell(heir, made, 'cat kept')).stdout).toBe('kept\n');
    await provider.destroy(made, soon());
  });

  it('runs a line that is longer than E2B takes in one piece', async () => {
    const made = await provider.create(smallSpec('long'), 'long', soon());
    const words = Array.from({ length: 3 }, (_value, index) => String(index).repeat(60_000));
    const { stdout } = await shell(provider, made, `printf %s "$A" | wc -c; printf %s "$B$C" | wc -c`, {
      env: { A: words[0] ?? '', B: words[1] ?? '', C: words[2] ?? '' },
    });
    expect(stdout).toBe('60000\n120000\n');
    await provider.destroy(made, soon());
  });
});
