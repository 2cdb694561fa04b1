import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { parseRouteFile, type RouteFile } from '../../gateway/routing/route-file.ts';
import {
  eventually,
  ledgerRows,
  openTestBed,
  startGateway,
  startUpstream,
  type RunningGateway,
  type TestBed,
  type Upstream,
} from './support.ts';

const FILE = fileURLToPath(new URL('./fixtures/litellm-config.yaml', import.meta.url));
const MASTER_KEY = 'sk-master-1234';
const run = promisify(execFile);

let bed: TestBed;
let upstream: Upstream;
let gateway: RunningGateway;
let env: Record<string, string>;

beforeAll(async () => {
  [bed, upstream] = await Promise.all([openTestBed(), startUpstream()]);
  env = {
    ROUTING_UPSTREAM: upstream.url,
    ROUTING_UPSTREAM_V1: `${upstream.url}/v1`,
    ROUTING_OPENAI_KEY: 'sk-openai',
    ROUTING_ANTHROPIC_KEY: 'sk-ant',
    ROUTING_AZURE_KEY: 'azure-key',
    ROUTING_AWS_ID: 'AKIDEXAMPLE',
    ROUTING_AWS_SECRET: 'secret',
    ROUTING_VERTEX_KEY: '{}',
    ROUTING_MASTER_KEY: MASTER_KEY,
    LONGHAUL_GATEWAY_CONFIG: FILE,
  };
  gateway = await startGateway(bed.pool, env);
});
afterAll(async () => {
  await gateway.close();
  await upstream.close();
  await bed.close();
});
beforeEach(() => {
  upstream.requests.length = 0;
  upstream.answer = (_req, res) =>
    res.writeHead(200, { 'content-type': 'application/json' }).end('{"id":"x","usage":{"prompt_tokens":1}}');
});

describe('a config.yaml of LiteLLM with ten models', () => {
  let read: RouteFile;
  beforeAll(async () => {
    read = await parseRouteFile(await readFile(FILE, 'utf8'), (name) => env[name]);
  });

  it('becomes routes', () => {
    const { routes, aliases } = read.file;
    expect(read.format).toBe('litellm');
    expect(aliases).toEqual({ 'gpt-4': 'gpt-4o' });
    expect(routes.map(({ name, deployments }) => [name, deployments.map(({ provider }) => provider)])).toEqual([
      ['gpt-4o', ['openai', 'azure-openai']],
      ['claude', ['anthropic']],
      ['claude-bedrock', ['bedrock']],
      ['claude-vertex', ['vertex']],
      ['local', ['openai-compatible']],
      ['vllm', ['openai-compatible']],
      ['anthropic/*', ['anthropic']],
      ['*', ['openai']],
    ]);
    expect(routes[0]).toMatchObject({
      strategy: 'latency-based',
      retries: 1,
      allowed_fails: 1,
      cooldown_ms: 30_000,
      fallbacks: { default: ['local'], context_window: ['vllm', 'ghost//*'] },
      deployments: [
        { id: 'openai-eu', model: 'gpt-4o', api_key: 'env:ROUTING_OPENAI_KEY', weight: 300, timeout_ms: 600_000 },
        { model: 'my-gpt4o', api_version: '2024-10-21', api_key: 'env:ROUTING_AZURE_KEY', weight: 100 },
      ],
    });
    expect(routes[1]?.deployments[0]).toMatchObject({ timeout_ms: 30_000, first_byte_timeout_ms: 5_000 });
    expect(routes[2]?.deployments[0]).toMatchObject({ model: 'anthropic.claude-opus-5-v1:0', region: 'eu-central-1' });
    expect(routes[4]?.deployments[0]).toMatchObject({
      base_url: `${upstream.url}/v1`,
      price: { input_nanos: 37.5, output_nanos: 150 },
    });
  });

  it('says of every other key that it is ignored, and why', () => {
    const reasons: [string, RegExp][] = [
      ['model_list[0].litellm_params.rpm', /as the weight, not as a limit/],
      ['model_list[0].model_info.base_model', /price/],
      ['model_list[5].model_info.mode', /no equal/],
      ['model_list[6].litellm_params.api_key', /a key in the file itself is never taken/],
      ['model_list[8]', /the provider "cohere" is not known here/],
      ['litellm_settings.drop_params', /pass through unchanged/],
      ['litellm_settings.success_callback', /OTLP/],
      ['router_settings.redis_host', /per gateway process/],
      ['general_settings.database_url', /DATABASE_URL/],
      ['guardrails', /no equal/],
      ['fallbacks.nobody', /no such model_name/],
    ];
    for (const [key, reason] of reasons) {
      const line = read.ignored.find((text) => text.startsWith(`${key}:`));
      expect(line, key).toMatch(reason);
    }
    expect(read.ignored.join('\n')).not.toContain('sk-this-stands-in-the-file');
    expect(JSON.stringify(read.file)).not.toContain('sk-this-stands-in-the-file');
  });

  it('takes no master key that stands in the file', async () => {
    const literal = (await readFile(FILE, 'utf8')).replace('os.environ/ROUTING_MASTER_KEY', 'sk-literal');
    const { masterKeyVariable, ignored } = await parseRouteFile(literal, (name) => env[name]);
    expect(masterKeyVariable).toBeUndefined();
    expect(ignored.find((line) => line.startsWith('general_settings.master_key'))).toContain('longhaul keys create');
    expect(ignored.join()).not.toContain('sk-literal');
  });

  it('understands a lone * for all names whose vendor is beyond doubt', async () => {
    const text = 'model_list: [{model_name: "*", litellm_params: {model: "*"}}]';
    const variables: Record<string, string> = { OPENAI_API_KEY: 'x', ANTHROPIC_API_KEY: 'y' };
    const { file } = await parseRouteFile(text, (name) => variables[name]);
    expect(file.routes.map(({ name }) => name)).toEqual([
      'claude-*',
      'anthropic/*',
      'gpt-*',
      'o1*',
      'o3*',
      'o4*',
      'openai/*',
    ]);
  });
});

/** What a shell would do with the line, without one. */
async function curl(path: string, body?: object, header = `Authorization: Bearer ${MASTER_KEY}`): Promise<unknown> {
  const data = body === undefined ? [] : ['-H', 'Content-Type: application/json', '-d', JSON.stringify(body)];
  const { stdout } = await run('curl', ['-sS', '--max-time', '20', `${gateway.url}${path}`, '-H', header, ...data]);
  return stdout.startsWith('{') ? JSON.parse(stdout) : stdout;
}

describe('curl lines that work against LiteLLM', () => {
  const message = { messages: [{ role: 'user', content: 'hi' }] };

  it.each(['/chat/completions', '/v1/chat/completions'])('POST %s', async (path) => {
    expect(await curl(path, { model: 'local', ...message })).toMatchObject({ id: 'x' });
    expect(upstream.requests[0]).toMatchObject({ path: '/v1/chat/completions' });
    expect(JSON.parse(upstream.requests[0]?.body ?? '')).toMatchObject({ model: 'llama3.2' });
  });

  it('with an alias, a wildcard and a prefix', async () => {
    expect(await curl('/chat/completions', { model: 'gpt-4', ...message })).toMatchObject({ id: 'x' });
    expect(await curl('/chat/completions', { model: 'some-new-model', ...message })).toMatchObject({ id: 'x' });
    expect(await curl('/v1/messages', { model: 'anthropic/claude-new', max_tokens: 5, ...message })).toMatchObject({
      id: 'x',
    });
    const models = upstream.requests.map(({ path, body }) => [
      path.split('?')[0],
      (JSON.parse(body) as { model?: string }).model,
    ]);
    expect(['/v1/chat/completions', '/openai/deployments/my-gpt4o/chat/completions']).toContain(models[0]?.[0]);
    expect(models.slice(1)).toEqual([
      ['/v1/chat/completions', 'some-new-model'],
      ['/v1/messages', 'claude-new'],
    ]);
  });

  it('POST /v1/messages with x-api-key', async () => {
    const body = { model: 'claude', max_tokens: 5, ...message };
    expect(await curl('/v1/messages', body, `x-api-key: ${MASTER_KEY}`)).toMatchObject({ id: 'x' });
    expect(upstream.requests[0]?.headers['x-api-key']).toBe('sk-ant');
  });

  it('with a stream', async () => {
    upstream.answer = (_req, res) =>
      res.writeHead(200, { 'content-type': 'text/event-stream' }).end('data: {"choices":[]}\n\ndata: [DONE]\n\n');
    const body = { model: 'local', stream: true, ...message };
    const { stdout } = await run('curl', [
      '-sSN',
      `${gateway.url}/chat/completions`,
      '-H',
      `Authorization: Bearer ${MASTER_KEY}`,
      '-H',
      'Content-Type: application/json',
      '-d',
      JSON.stringify(body),
    ]);
    expect(stdout).toContain('data: [DONE]');
  });

  it.each(['/models', '/v1/models'])('GET %s', async (path) => {
    const { data } = (await curl(path)) as { data: { id: string }[] };
    expect(data.map(({ id }) => id)).toEqual(expect.arrayContaining(['gpt-4', 'gpt-4o', 'claude', 'local', 'vllm']));
  });

  it.each(['/health/liveliness', '/health/liveness', '/health/readiness'])('GET %s', async (path) => {
    const { stdout } = await run('curl', ['-sS', '-o', '/dev/null', '-w', '%{http_code}', `${gateway.url}${path}`]);
    expect(stdout).toBe('200');
  });

  it('are refused with another key', async () => {
    const wrong = 'Authorization: Bearer sk-other';
    expect(await curl('/chat/completions', { model: 'local', ...message }, wrong)).toMatchObject({
      error: { code: 'invalid_api_key' },
    });
  });

  it('use the price of the file for their ledger rows', async () => {
    await bed.pool.query('TRUNCATE ledger');
    upstream.answer = (_req, res) =>
      res
        .writeHead(200, { 'content-type': 'application/json' })
        .end('{"id":"x","usage":{"prompt_tokens":1000000,"completion_tokens":1000000}}');
    await curl('/chat/completions', { model: 'local', ...message });
    const row = await eventually(async () => (await ledgerRows(bed.pool))[0]);
    // A million tokens each, at 0.0375 and 0.15 dollars.
    expect(row).toMatchObject({ model: 'llama3.2', cost_micros: 187_500 });
  });
});
