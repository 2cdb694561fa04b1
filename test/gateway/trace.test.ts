import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { readGatewayConfig } from '../../gateway/config.ts';
import { createGateway, type Gateway } from '../../gateway/server.ts';
import { createLogger } from '../../telemetry/logger.ts';
import { createTracing, type Tracing } from '../../telemetry/tracing.ts';
import { traceIdOf, turnSpan, formatTraceparent } from '../../telemetry/trace-ids.ts';
import { startCollector, type Collector, type ReceivedSpan } from '../support/otlp-collector.ts';
import {
  createSession,
  eventually,
  ledgerRows,
  listen,
  messagesRequest,
  mintKey,
  openTestBed,
  post,
  scriptText,
  startUpstream,
  stop,
  type TestBed,
} from './support.ts';

const run = promisify(execFile);
const SECRET_PROMPT = 'the-quick-brown-prompt';
const VARIABLES = [
  'LONGHAUL_TRACE_OPENINFERENCE',
  'OTEL_EXPORTER_OTLP_ENDPOINT',
  'OTEL_BSP_SCHEDULE_DELAY',
  'OTEL_TRACES_SAMPLER',
  'LONGHAUL_TRACE_CONTENT',
];

const messagesOf = (
  span: ReceivedSpan,
  name: 'input' | 'output',
): { role: string; parts: Record<string, unknown>[] }[] =>
  JSON.parse(String(span.attributes[`gen_ai.${name}.messages`])) as [];

const deployment = (id: string, upstream: { url: string }): object => ({
  id,
  provider: 'openai-compatible',
  model: id,
  base_url: `${upstream.url}/v1`,
});

describe('traces of model calls', () => {
  let bed: TestBed;
  let collector: Collector;
  let closers: (() => Promise<unknown>)[] = [];
  beforeAll(async () => {
    bed = await openTestBed();
  });
  afterAll(() => bed.close());
  afterEach(async () => {
    for (const close of closers.toReversed()) await close();
    closers = [];
    for (const name of VARIABLES) Reflect.deleteProperty(process.env, name);
  });

  /** A gateway whose spans go where `env` says; default: to a collector of its own. */
  const start = async (
    env: Record<string, string> = {},
  ): Promise<{ url: string; tracing: Tracing; gateway: Gateway }> => {
    collector = await startCollector();
    const all = { OTEL_EXPORTER_OTLP_ENDPOINT: collector.url, OTEL_BSP_SCHEDULE_DELAY: '20', ...env };
    Object.assign(process.env, all);
    const logger = createLogger('test', 'silent');
    const tracing = await createTracing('gateway', logger);
    const config = readGatewayConfig({ LONGHAUL_SCRIPTED: '1', ...env });
    const gateway = createGateway({ pool: bed.pool, config, logger, tracing });
    const server = createServer((req, res) => void gateway.handle(req, res));
    const url = await listen(server);
    closers.push(
      () => collector.close(),
      () => tracing.close(),
      () => stop(server),
      () => gateway.close(1_000),
    );
    return { url, tracing, gateway };
  };
  const spanNamed = (name: string): Promise<ReceivedSpan> =>
    eventually(() => collector.spans().find((span) => span.name === name));

  it('a streamed step: place in the tree, times and tokens as in the ledger', async () => {
    const { url } = await start();
    const sessionId = await createSession(bed.pool);
    const key = await mintKey(bed.pool, { sessionId });
    const script = [
      { text: 'hello there', chunks: 4, chunkMs: 15, usage: { input: 70, output: 9, cacheRead: 20, cacheWrite: 5 } },
    ];
    const turn = turnSpan(sessionId, 1, 2);
    const body = messagesRequest(scriptText(script, SECRET_PROMPT), { stream: true });
    const response = await post(`${url}/v1/messages`, key, body, {
      'idempotency-key': `${sessionId}/1/0`,
      traceparent: formatTraceparent(turn),
    });
    await response.text();
    const span = await spanNamed('chat scripted');
    const row = (await ledgerRows(bed.pool)).find((entry) => entry['session_id'] === sessionId);
    expect(span).toMatchObject({ traceId: traceIdOf(sessionId), parentSpanId: turn.spanId, kind: 3, isError: false });
    expect(span.service).toBe('longhaul-gateway');
    expect(span.attributes).toMatchObject({
      'gen_ai.operation.name': 'chat',
      'gen_ai.provider.name': 'scripted',
      'gen_ai.request.model': 'scripted',
      'gen_ai.conversation.id': sessionId,
      'gen_ai.request.stream': true,
      'gen_ai.usage.input_tokens': 95,
      'gen_ai.usage.output_tokens': Number(row?.['output_tokens']),
      'gen_ai.usage.cache_read.input_tokens': Number(row?.['cache_read_tokens']),
      'gen_ai.usage.cache_creation.input_tokens': 5,
      'longhaul.turn': 1,
      'longhaul.step': 0,
      'longhaul.call.id': row?.['id'] as string,
      'longhaul.cost_micros': Number(row?.['cost_micros']),
    });
    expect(Number(row?.['input_tokens'])).toBe(70);
    expect(span.attributes['gen_ai.response.time_to_first_chunk']).toBe(Number(row?.['ttft_ms']) / 1_000);
    expect(Math.round(span.endMs - span.startMs)).toBe(Number(row?.['latency_ms']));
    expect(span.attributes['longhaul.generation_time']).toBeCloseTo(
      (Number(row?.['latency_ms']) - Number(row?.['ttft_ms'])) / 1_000,
    );
  });

  it('holds no word of prompt or answer unless asked for', async () => {
    const { url } = await start();
    const key = await mintKey(bed.pool);
    await (
      await post(
        `${url}/v1/messages`,
        key,
        messagesRequest(scriptText([{ text: 'a-word-of-the-answer' }], SECRET_PROMPT)),
      )
    ).text();
    await spanNamed('chat scripted');
    expect(collector.bytes().includes('chat scripted')).toBe(true);
    for (const word of [SECRET_PROMPT, 'a-word-of-the-answer', key])
      expect(collector.bytes().includes(word)).toBe(false);
  });

  it('an error has its code and nothing a provider said', async () => {
    const { url } = await start();
    const key = await mintKey(bed.pool);
    const script = [{ error: { status: 400, type: 'invalid_request_error', message: `quoting ${SECRET_PROMPT}` } }];
    await (await post(`${url}/v1/messages`, key, messagesRequest(scriptText(script)))).text();
    const span = await spanNamed('chat scripted');
    expect(span).toMatchObject({ isError: true, attributes: { 'error.type': 'provider_rejected' } });
    expect(collector.bytes().includes(SECRET_PROMPT)).toBe(false);
  });

  it('shows each deployment that was asked', async () => {
    const [bad, good] = await Promise.all([startUpstream(), startUpstream()]);
    const folder = await mkdtemp(path.join(os.tmpdir(), 'longhaul-trace-'));
    closers.push(
      () => bad.close(),
      () => good.close(),
      () => rm(folder, { recursive: true }),
    );
    bad.answer = (_req, res) => res.writeHead(503).end(`{"error":{"message":"${SECRET_PROMPT}"}}`);
    good.answer = (_req, res) =>
      res
        .writeHead(200, { 'content-type': 'application/json' })
        .end('{"usage":{"prompt_tokens":3,"completion_tokens":4}}');
    const routes = [
      { name: 'alias', retries: 0, deployments: [deployment('first', bad)], fallbacks: { default: ['spare'] } },
      { name: 'spare', deployments: [deployment('second', good)] },
    ];
    const file = path.join(folder, 'gateway.yaml');
    await writeFile(file, JSON.stringify({ routes }));
    const { url } = await start({ LONGHAUL_GATEWAY_CONFIG: file });
    const key = await mintKey(bed.pool);
    const response = await post(`${url}/v1/chat/completions`, key, { model: 'alias', messages: [] });
    expect(response.status, await response.text()).toBe(200);
    const span = await spanNamed('chat alias');
    expect(span.attributes).toMatchObject({ 'gen_ai.response.model': 'second', 'longhaul.model_deployment': 'second' });
    expect(span.events).toMatchObject([
      {
        name: 'longhaul.attempt',
        attributes: {
          'longhaul.attempt': 1,
          'longhaul.model_deployment': 'first',
          'http.response.status_code': 503,
          'error.type': 'unavailable',
        },
      },
      { name: 'longhaul.attempt', attributes: { 'longhaul.attempt': 2, 'longhaul.model_deployment': 'second' } },
    ]);
    expect(collector.bytes().includes(SECRET_PROMPT)).toBe(false);
  });

  it('shows an answer that was given again', async () => {
    const upstream = await startUpstream();
    closers.push(() => upstream.close());
    upstream.answer = (_req, res) =>
      res
        .writeHead(200, { 'content-type': 'application/json' })
        .end(
          '{"id":"m","type":"message","role":"assistant","content":[{"type":"text","text":"hi"}],"stop_reason":"end_turn","usage":{"input_tokens":3,"output_tokens":1}}',
        );
    const { url } = await start({ ANTHROPIC_BASE_URL: upstream.url });
    const sessionId = await createSession(bed.pool);
    await bed.pool.query('UPDATE sessions SET agent = $2 WHERE id = $1', [
      sessionId,
      '{"response_cache":{"ttl":"5m","tool_calls":false}}',
    ]);
    const key = await mintKey(bed.pool, { sessionId });
    const ask = { ...messagesRequest('again'), model: 'claude-opus-4-5' };
    for (const state of ['miss', 'hit']) {
      const response = await post(`${url}/v1/messages`, key, ask);
      await response.text();
      expect(response.headers.get('x-cache')).toBe(state);
    }
    const spans = await eventually(() => {
      const found = collector.spans().filter((span) => span.attributes['gen_ai.conversation.id'] === sessionId);
      return found.length === 2 && found;
    });
    expect(spans.map((span) => span.attributes['longhaul.cache'])).toEqual([undefined, 'hit']);
    expect(spans[1]?.attributes).toMatchObject({ 'longhaul.cost_micros': 0, 'gen_ai.usage.output_tokens': 0 });
  });

  describe('content, when it is asked for', () => {
    const SECRETS = [
      'sk-ant-api03-abcdefghijklmnopqrstuvwxyz0123456789',
      'ghp_abcdefghijklmnopqrstuvwxyz012345',
      'AKIAIOSFODNN7EXAMPLE',
      'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcdefghijkl',
      'hunter2-is-my-passphrase',
      'a-word-in-a-url',
      'xoxb-123456789012-abcdefghij',
    ];
    const [, , , , passphrase, inUrl] = SECRETS;
    const leaky = `${SECRETS.slice(0, 4).join(' ')} DB_PASSWORD=${passphrase} postgres://me:${inUrl}@db/x ${SECRETS[6]}
      -----BEGIN RSA PRIVATE KEY-----\nMIIabcdefg\n-----END RSA PRIVATE KEY-----`;
    const tool = { name: 'bash', input: { command: 'ls', api_key: 'plain-looking-value' } };

    it.each([
      ['messages', '/v1/messages', true],
      ['messages', '/v1/messages', false],
      ['chat', '/v1/chat/completions', true],
      ['chat', '/v1/chat/completions', false],
      ['responses', '/v1/responses', true],
      ['responses', '/v1/responses', false],
    ] as const)('%s %s, stream: %s', async (protocol, route, stream) => {
      const { url } = await start({ LONGHAUL_TRACE_CONTENT: '1' });
      const key = await mintKey(bed.pool);
      const text = `${SECRET_PROMPT} ${leaky}\n${scriptText([{ text: 'the answer', tools: [tool], chunks: 2 }])}`;
      const body =
        protocol === 'responses'
          ? {
              model: 'scripted',
              stream,
              instructions: 'be brief',
              input: text,
              tools: [{ type: 'function', name: 'bash' }],
            }
          : {
              model: 'scripted',
              stream,
              max_tokens: 100,
              ...(protocol === 'messages' ? { system: 'be brief' } : {}),
              messages: [{ role: 'user', content: text }],
              tools: [
                protocol === 'messages'
                  ? { name: 'bash', input_schema: { type: 'object' } }
                  : { type: 'function', function: { name: 'bash' } },
              ],
            };
      const response = await post(`${url}${route}`, key, body);
      expect(response.status, await response.text()).toBe(200);
      const span = await spanNamed('chat scripted');
      const [asked] = messagesOf(span, 'input');
      expect(asked).toMatchObject({ role: 'user', parts: [{ type: 'text' }] });
      expect(String(asked?.parts[0]?.['content'])).toContain(SECRET_PROMPT);
      const [answered] = messagesOf(span, 'output');
      expect(answered?.parts[0]).toEqual({ type: 'text', content: 'the answer' });
      expect(answered?.parts[1]).toMatchObject({ type: 'tool_call', name: 'bash' });
      expect(JSON.stringify(answered)).toContain('ls');
      if (protocol !== 'chat') expect(span.attributes['gen_ai.system_instructions']).toContain('be brief');
      expect(span.attributes['longhaul.content.redacted']).toBe(true);
      for (const secret of [...SECRETS, 'MIIabcdefg', 'plain-looking-value', key]) {
        expect(collector.bytes().includes(secret), secret).toBe(false);
      }
    });

    it('is cut: each text, and a long conversation in its middle', async () => {
      const { url } = await start({ LONGHAUL_TRACE_CONTENT: '1' });
      const key = await mintKey(bed.pool);
      const messages = Array.from({ length: 199 }, (_, index) => ({
        role: index % 2 === 0 ? 'user' : 'assistant',
        content: `message ${index} ${'x'.repeat(1_000)}`,
      }));
      await (await post(`${url}/v1/messages`, key, { model: 'scripted', max_tokens: 10, messages })).text();
      const span = await spanNamed('chat scripted');
      expect(String(span.attributes['gen_ai.input.messages']).length).toBeLessThanOrEqual(16_384);
      const shown = messagesOf(span, 'input');
      expect(JSON.stringify(shown[0])).toContain('message 0 ');
      expect(shown[1]).toEqual({ cut: 199 - shown.length + 1 });
      expect(JSON.stringify(shown.at(-1))).toContain('message 198 ');
    });

    it('of a body that is larger than is read for a trace is left out, and the call is as ever', async () => {
      const { url } = await start({ LONGHAUL_TRACE_CONTENT: '1' });
      const key = await mintKey(bed.pool);
      const response = await post(`${url}/v1/messages`, key, messagesRequest('y'.repeat(1_500_000)));
      expect(response.status).toBe(200);
      await response.text();
      const span = await spanNamed('chat scripted');
      expect(span.attributes['gen_ai.input.messages']).toBeUndefined();
      expect(span.attributes['longhaul.content.redacted']).toBe(true);
    });

    it('nested deeper than a stack does no harm', async () => {
      const key = await mintKey(bed.pool);
      const deep = `${'['.repeat(100_000)}${']'.repeat(100_000)}`;
      const block = `{"type":"tool_use","id":"t","name":"n","input":${deep}}`;
      const body = `{"model":"claude-opus-4-5","max_tokens":9,"messages":[{"role":"assistant","content":[${block}]}]}`;
      const upstream = await startUpstream();
      closers.push(() => upstream.close());
      upstream.answer = (_req, res) => res.writeHead(200, { 'content-type': 'application/json' }).end('{"usage":{}}');
      const { url } = await start({ LONGHAUL_TRACE_CONTENT: '1', ANTHROPIC_BASE_URL: upstream.url });
      const response = await post(`${url}/v1/messages`, key, body);
      await response.text();
      expect((await spanNamed('chat claude-opus-4-5')).attributes['longhaul.content.redacted']).toBe(true);
    });

    it('takes OpenInference’s names when these are wanted', async () => {
      const { url } = await start({ LONGHAUL_TRACE_CONTENT: '1', LONGHAUL_TRACE_OPENINFERENCE: '1' });
      const key = await mintKey(bed.pool);
      const script = [{ text: 'hi', usage: { input: 7, output: 2, cacheRead: 3 } }];
      await (await post(`${url}/v1/messages`, key, messagesRequest(scriptText(script)))).text();
      const span = await spanNamed('chat scripted');
      expect(span.attributes).toMatchObject({
        'openinference.span.kind': 'LLM',
        'llm.model_name': 'scripted',
        'llm.token_count.prompt': 10,
        'llm.token_count.completion': 2,
        'llm.token_count.total': 12,
        'input.mime_type': 'application/json',
      });
    });
  });

  describe('the context a client sends', () => {
    const foreign = { traceId: 'ab'.repeat(16), spanId: 'cd'.repeat(8) };

    it('is the parent of a call outside of any session', async () => {
      const { url } = await start();
      const key = await mintKey(bed.pool);
      await (
        await post(`${url}/v1/messages`, key, messagesRequest('hi'), { traceparent: formatTraceparent(foreign) })
      ).text();
      const span = await spanNamed('chat scripted');
      expect(span).toMatchObject({ traceId: foreign.traceId, parentSpanId: foreign.spanId, links: [] });
    });

    it('is a link of a call inside a session', async () => {
      const { url } = await start();
      const sessionId = await createSession(bed.pool);
      const key = await mintKey(bed.pool, { sessionId });
      await (
        await post(`${url}/v1/messages`, key, messagesRequest('hi'), { traceparent: formatTraceparent(foreign) })
      ).text();
      const span = await spanNamed('chat scripted');
      expect(span).toMatchObject({ traceId: traceIdOf(sessionId), links: [foreign] });
    });

    it.each([
      '',
      'nonsense',
      `00-${'0'.repeat(32)}-${'cd'.repeat(8)}-01`,
      `ff-${'ab'.repeat(16)}-${'cd'.repeat(8)}-01`,
    ])('is left alone when it is none: %j', async (traceparent) => {
      const { url } = await start();
      const key = await mintKey(bed.pool);
      const response = await post(`${url}/v1/messages`, key, messagesRequest('hi'), { traceparent });
      expect(response.status).toBe(200);
      await response.text();
      expect(await spanNamed('chat scripted')).toMatchObject({ parentSpanId: '', links: [] });
    });

    it('can ask not to be recorded', async () => {
      const { url } = await start();
      const key = await mintKey(bed.pool);
      const unsampled = formatTraceparent(foreign).replace(/01$/, '00');
      await (await post(`${url}/v1/messages`, key, messagesRequest('one'), { traceparent: unsampled })).text();
      await (await post(`${url}/v1/messages`, key, messagesRequest('two'))).text();
      await spanNamed('chat scripted');
      expect(collector.spans().filter((span) => span.traceId === foreign.traceId)).toEqual([]);
    });
  });

  it('a collector that is away or refuses everything changes nothing for a call', async () => {
    const refusing = await startUpstream();
    closers.push(() => refusing.close());
    for (const endpoint of ['http://127.0.0.1:9', refusing.url]) {
      const { url, tracing, gateway } = await start({ OTEL_EXPORTER_OTLP_ENDPOINT: endpoint });
      const key = await mintKey(bed.pool);
      for (let call = 0; call < 5; call += 1) {
        const response = await post(`${url}/v1/messages`, key, messagesRequest('hi'));
        expect(response.status).toBe(200);
        await response.text();
      }
      // In the order of the process: what has ended is told, then sent.
      await gateway.close(1_000);
      await tracing.close();
    }
    expect(refusing.requests.length).toBeGreaterThan(0);
  });

  it('more spans than may wait are dropped, the newest first, and nothing grows', async () => {
    const { tracing } = await start({ OTEL_BSP_MAX_QUEUE_SIZE: '10', OTEL_BSP_SCHEDULE_DELAY: '60000' });
    Reflect.deleteProperty(process.env, 'OTEL_BSP_MAX_QUEUE_SIZE');
    for (let index = 0; index < 1_000; index += 1) {
      const spanId = index.toString(16).padStart(16, '1');
      tracing.record({
        traceId: 'ef'.repeat(16),
        spanId,
        name: `span ${index}`,
        kind: 'internal',
        startMs: 1,
        endMs: 2,
        attributes: {},
      });
    }
    await tracing.close();
    // A full batch is sent while the others come, so at most two batches pass.
    expect(collector.spans().length).toBeLessThanOrEqual(20);
    expect(collector.spans().length).toBeGreaterThan(0);
  });

  it.each([
    ['', false],
    ['http://127.0.0.1:9', true],
  ])('loads OpenTelemetry only when there is an endpoint: %j', async (endpoint, isLoaded) => {
    const tracing = new URL('../../dist/telemetry/tracing.js', import.meta.url).href;
    // The modules a process has loaded are listed by Node itself.
    const script = `
      import { Module } from 'node:module';
      const { createTracing } = await import(${JSON.stringify(tracing)});
      const tracing = await createTracing('test', { warn() {} });
      const loaded = Object.keys(Module._cache).filter((file) => file.includes('@opentelemetry'));
      console.log(JSON.stringify([tracing.isOn, loaded.length > 0]));
      process.exit(0);`;
    const env = { ...process.env, OTEL_EXPORTER_OTLP_ENDPOINT: endpoint };
    const { stdout } = await run(process.execPath, ['--input-type=module', '-e', script], { env });
    expect(JSON.parse(stdout)).toEqual([isLoaded, isLoaded]);
  });

  it.each([
    [{ OTEL_SDK_DISABLED: 'true' }],
    [{ OTEL_TRACES_EXPORTER: 'none' }],
    [{ OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc' }],
    [{ OTEL_EXPORTER_OTLP_ENDPOINT: 'no url' }],
  ])('is off with %j, and calls are as ever', async (env) => {
    const { url, tracing } = await start(env);
    for (const name of Object.keys(env)) Reflect.deleteProperty(process.env, name);
    expect(tracing.isOn).toBe(false);
    const key = await mintKey(bed.pool);
    expect((await post(`${url}/v1/messages`, key, messagesRequest('hi'))).status).toBe(200);
  });

  it('a sampler of the standard variables keeps whole sessions or none', async () => {
    const { url, tracing } = await start({ OTEL_TRACES_SAMPLER: 'always_off' });
    const key = await mintKey(bed.pool);
    await (await post(`${url}/v1/messages`, key, messagesRequest('hi'))).text();
    await tracing.close();
    expect(collector.spans()).toEqual([]);
  });
});
