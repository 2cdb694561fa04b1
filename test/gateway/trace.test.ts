import { createServer } from 'node:http';
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

const SECRET_PROMPT = 'the-quick-brown-prompt';
const VARIABLES = [
  'OTEL_EXPORTER_OTLP_ENDPOINT',
  'OTEL_BSP_SCHEDULE_DELAY',
  'OTEL_TRACES_SAMPLER',
  'LONGHAUL_TRACE_CONTENT',
];

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
      const { url, tracing } = await start({ OTEL_EXPORTER_OTLP_ENDPOINT: endpoint });
      const key = await mintKey(bed.pool);
      for (let call = 0; call < 5; call += 1) {
        const response = await post(`${url}/v1/messages`, key, messagesRequest('hi'));
        expect(response.status).toBe(200);
        await response.text();
      }
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

  it('is off, and loads nothing, without an endpoint', async () => {
    const { tracing } = await start({ OTEL_EXPORTER_OTLP_ENDPOINT: '' });
    expect(tracing.isOn).toBe(false);
  });

  it('a sampler of the standard variables keeps whole sessions or none', async () => {
    const { url, tracing } = await start({ OTEL_TRACES_SAMPLER: 'always_off' });
    const key = await mintKey(bed.pool);
    await (await post(`${url}/v1/messages`, key, messagesRequest('hi'))).text();
    await tracing.close();
    expect(collector.spans()).toEqual([]);
  });
});
