import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { SessionTraceResource } from '../../contracts/traces.ts';
import {
  effectSpan,
  formatTraceparent,
  inputSpan,
  sessionSpan,
  spanIdOf,
  traceIdOf,
  turnSpan,
} from '../../telemetry/trace-ids.ts';
import { startCollector, type Collector, type ReceivedSpan } from '../support/otlp-collector.ts';
import { recorded } from '../support/recorder.ts';
import { bash, SessionDriver, STACK_TEST_MS } from '../support/session-driver.ts';
import { runCli, startStack, type TestStack } from '../support/stack.ts';

interface Call {
  callKey: string;
  input: number;
  output: number;
  ttftMs: number;
}

describe('the trace of a session', { timeout: STACK_TEST_MS }, () => {
  let stack: TestStack;
  let driver: SessionDriver;
  let collector: Collector;
  beforeAll(async () => {
    collector = await startCollector();
    stack = await startStack({
      env: { OTEL_EXPORTER_OTLP_ENDPOINT: collector.url, OTEL_BSP_SCHEDULE_DELAY: '50' },
    });
    driver = new SessionDriver(stack);
  });
  afterAll(async () => {
    await driver.close();
    await stack.stop();
    await collector.close();
  });

  const spansOf = (sessionId: string): ReceivedSpan[] =>
    collector.spans().filter((span) => span.attributes['gen_ai.conversation.id'] === sessionId);
  const named = (sessionId: string, name: RegExp): ReceivedSpan[] =>
    spansOf(sessionId)
      .filter((span) => name.test(span.name))
      .toSorted((a, b) => a.startMs - b.startMs);
  const untilSpans = (sessionId: string, name: RegExp, count: number): Promise<void> =>
    driver.until(`${count} spans ${String(name)}`, () => named(sessionId, name).length >= count);

  /** Turns, calls and tools must be told under the same ids by the record and by what was exported. */
  const sameInTheRecord = async (sessionId: string): Promise<void> => {
    const answer = await driver.call('GET', `/v1/sessions/${sessionId}/trace`);
    const trace = answer.body as unknown as SessionTraceResource;
    const steps = trace.turns.flatMap((turn) => turn.steps);
    const told = [
      [trace.span_id, ''],
      ...trace.turns.flatMap((turn) => turn.parts.map((part) => [part.span_id, trace.span_id])),
      ...steps.map(({ call }) => [call?.span_id, call?.parent_span_id]),
      ...steps.flatMap(({ effects }) => effects.map((effect) => [effect.span_id, effect.parent_span_id])),
    ];
    const exported = spansOf(sessionId)
      .filter((span) => !span.name.startsWith('receive'))
      .map((span) => [span.spanId, span.parentSpanId]);
    expect(trace.trace_id).toBe(traceIdOf(sessionId));
    expect(told.map(String).toSorted()).toEqual(exported.map(String).toSorted());
  };

  it('is a tree from session to call, with the ledger’s numbers', async () => {
    const command = `echo a-secret-of-the-command; ${recorded('tree')}`;
    const sessionId = await driver.open([
      { text: 'I will look.', tools: [bash(command)], chunks: 3, chunkMs: 20 },
      { text: 'a-secret-of-the-answer' },
    ]);
    await driver.quiet([sessionId]);
    await untilSpans(sessionId, /^invoke_agent/, 1);
    await untilSpans(sessionId, /^chat/, 2);
    await untilSpans(sessionId, /^execute_tool/, 1);

    const spans = spansOf(sessionId);
    expect(new Set(spans.map((span) => span.traceId))).toEqual(new Set([traceIdOf(sessionId)]));
    const root = sessionSpan(sessionId);
    const turn = turnSpan(sessionId, 1, 0);
    expect(named(sessionId, /^invoke_workflow session$/)).toMatchObject([{ spanId: root.spanId, parentSpanId: '' }]);
    const [effect] = await driver.query<{ id: string }>('SELECT id FROM effects WHERE session_id = $1', [sessionId]);
    const [input] = await driver.query<{ id: string }>('SELECT event_id AS id FROM inputs WHERE session_id = $1', [
      sessionId,
    ]);
    expect(named(sessionId, /^invoke_agent/)).toMatchObject([
      {
        name: 'invoke_agent chaos always_allow',
        spanId: turn.spanId,
        parentSpanId: root.spanId,
        links: [inputSpan(sessionId, input?.id ?? '')],
        attributes: { 'longhaul.turn.state': 'completed', 'longhaul.stop_reason': 'end_turn' },
      },
    ]);
    expect(named(sessionId, /^execute_tool/)).toMatchObject([
      {
        name: 'execute_tool bash',
        spanId: effectSpan(sessionId, effect?.id ?? '', 1).spanId,
        parentSpanId: turn.spanId,
        isError: false,
        service: 'longhaul-worker',
      },
    ]);
    const ledger = await driver.query<Call>(
      `SELECT call_key AS "callKey", (input_tokens + cache_read_tokens + cache_write_5m_tokens + cache_write_1h_tokens)::int AS input,
         output_tokens::int AS output, ttft_ms AS "ttftMs" FROM ledger WHERE session_id = $1 ORDER BY step`,
      [sessionId],
    );
    expect(
      named(sessionId, /^chat/).map((span) => [
        span.spanId,
        span.parentSpanId,
        span.service,
        span.attributes['gen_ai.usage.input_tokens'],
        span.attributes['gen_ai.usage.output_tokens'],
        span.attributes['gen_ai.response.time_to_first_chunk'],
      ]),
    ).toEqual(
      ledger.map((row) => [
        spanIdOf('call', row.callKey),
        turn.spanId,
        'longhaul-api',
        row.input,
        row.output,
        row.ttftMs / 1_000,
      ]),
    );
    expect(named(sessionId, /^receive/)).toMatchObject([
      { name: 'receive user.message', spanId: inputSpan(sessionId, input?.id ?? '').spanId, service: 'longhaul-api' },
    ]);
    for (const secret of ['a-secret-of-the-command', 'a-secret-of-the-answer', 'Play this', stack.key]) {
      expect(collector.bytes().includes(secret), secret).toBe(false);
    }
    await sameInTheRecord(sessionId);
    const { code, stdout } = await runCli(['trace', sessionId], stack.home);
    expect(code).toBe(0);
    expect(stdout).toContain(`trace ${traceIdOf(sessionId)}`);
    expect(stdout).toMatch(/turn 1 {2}completed \(end_turn\)/);
    expect(stdout).toMatch(/chat scripted {2}.*tokens.*\$/);
    expect(stdout).toMatch(/bash {2}succeeded/);
  });

  it('is cut where a person is waited for, and linked', async () => {
    const sessionId = await driver.open([{ tools: [bash(recorded('asked'))] }, { text: 'done' }], {
      policy: 'always_ask',
    });
    const approval = await driver.pendingApproval(sessionId);
    // Nobody needs to decide for the first part to be there.
    await untilSpans(sessionId, /^invoke_agent/, 1);
    expect(named(sessionId, /^invoke_agent/)).toMatchObject([
      { spanId: turnSpan(sessionId, 1, 0).spanId, attributes: { 'longhaul.turn.state': 'waiting' } },
    ]);
    await driver.decide(approval.id, 'allow');
    await driver.quiet([sessionId]);
    await untilSpans(sessionId, /^invoke_agent/, 2);
    await untilSpans(sessionId, /^chat/, 2);
    expect(named(sessionId, /^receive/).map((span) => span.name)).toEqual([
      'receive user.message',
      'receive user.tool_confirmation',
    ]);
    const [first, second] = named(sessionId, /^invoke_agent/);
    expect(second).toMatchObject({
      spanId: turnSpan(sessionId, 1, 1).spanId,
      links: [turnSpan(sessionId, 1, 0)],
      events: [{ name: 'longhaul.approval', attributes: { 'longhaul.approval.decision': 'allow' } }],
      attributes: { 'longhaul.turn.state': 'completed' },
    });
    expect(second?.startMs).toBeGreaterThanOrEqual(first?.endMs ?? Number.POSITIVE_INFINITY);
    expect(named(sessionId, /^execute_tool/)[0]?.parentSpanId).toBe(second?.spanId);
    expect(named(sessionId, /^chat/).map((span) => span.parentSpanId)).toEqual([first?.spanId, second?.spanId]);
    await sameInTheRecord(sessionId);
  });

  it('keeps the context of a client as a link of what it sent', async () => {
    const sessionId = await driver.open([{ text: 'one' }]);
    await driver.quiet([sessionId]);
    const client = { traceId: 'ab'.repeat(16), spanId: 'cd'.repeat(8) };
    const response = await fetch(`${stack.url}/v1/sessions/${sessionId}/events`, {
      method: 'POST',
      headers: {
        authorization: `Bearer ${stack.key}`,
        'content-type': 'application/json',
        traceparent: formatTraceparent(client),
      },
      body: JSON.stringify({ events: [{ type: 'user.message', content: 'two' }] }),
    });
    expect(response.status).toBe(200);
    await driver.quiet([sessionId]);
    await untilSpans(sessionId, /^receive/, 2);
    await untilSpans(sessionId, /^invoke_agent/, 2);
    const [, received] = named(sessionId, /^receive/);
    expect(received?.links).toEqual([client]);
    const [, second] = named(sessionId, /^invoke_agent/);
    expect(second?.links).toEqual([{ traceId: traceIdOf(sessionId), spanId: received?.spanId }]);
  });

  it('joins although the worker is killed in a command, and the api in an answer', async () => {
    const sessionId = await driver.open([
      { tools: [bash(recorded('killed', 4))] },
      { text: 'a long answer', chunks: 20, chunkMs: 100 },
    ]);
    await driver.ran(sessionId, 'killed');
    await stack.killAndRecover('worker');
    await driver.untilSql(
      'the second answer streams',
      sessionId,
      `EXISTS (SELECT 1 FROM model_calls m WHERE m.session_id = s.id AND m.idempotency_key LIKE '%/1' AND m.state = 'in_flight')`,
    );
    await stack.killAndRecover('api');
    await driver.quiet([sessionId]);
    await untilSpans(sessionId, /^invoke_agent/, 1);
    await untilSpans(sessionId, /^execute_tool/, 1);
    await driver.until('the second call is told of', () =>
      named(sessionId, /^chat/).some((span) => span.spanId === spanIdOf('call', `${sessionId}/1/1`)),
    );
    const spans = spansOf(sessionId);
    expect(new Set(spans.map((span) => span.traceId))).toEqual(new Set([traceIdOf(sessionId)]));
    const parents = new Set(spans.map((span) => span.parentSpanId));
    expect(parents).toEqual(new Set(['', sessionSpan(sessionId).spanId, turnSpan(sessionId, 1, 0).spanId]));
    expect(named(sessionId, /^execute_tool/)).toHaveLength(1);
    await sameInTheRecord(sessionId);
  });
});

describe('the trace of a session whose content may be told', { timeout: STACK_TEST_MS }, () => {
  let stack: TestStack;
  let driver: SessionDriver;
  let collector: Collector;
  beforeAll(async () => {
    collector = await startCollector();
    const env = { OTEL_BSP_SCHEDULE_DELAY: '50', LONGHAUL_TRACE_CONTENT: '1' };
    stack = await startStack({ env: { OTEL_EXPORTER_OTLP_ENDPOINT: collector.url, ...env } });
    driver = new SessionDriver(stack);
  });
  afterAll(async () => {
    await driver.close();
    await stack.stop();
    await collector.close();
  });

  it('holds what a tool was given and gave, without what looks like a secret', async () => {
    const secret = 'ghp_abcdefghijklmnopqrstuvwxyz012345';
    const sessionId = await driver.open([{ tools: [bash(`echo seen-by-all ${secret}; exit 3`)] }, { text: 'done' }]);
    await driver.quiet([sessionId]);
    const spans = (): ReceivedSpan[] => collector.spans().filter((span) => span.traceId === traceIdOf(sessionId));
    const find = (name: string): ReceivedSpan | undefined => spans().find((span) => span.name === name);
    await driver.until('tool and turn are told of', () => {
      return find('execute_tool bash') !== undefined && find('invoke_agent chaos always_allow') !== undefined;
    });
    const tool = find('execute_tool bash');
    expect(tool).toMatchObject({ isError: true, attributes: { 'error.type': 'tool_error' } });
    expect(tool?.attributes['gen_ai.tool.call.arguments']).toContain('echo seen-by-all [redacted]');
    expect(tool?.attributes['gen_ai.tool.call.result']).toContain('seen-by-all [redacted]');
    expect(tool?.attributes['longhaul.content.redacted']).toBe(true);
    await driver.until(
      'both calls are told of',
      () => spans().filter(({ name }) => name === 'chat scripted').length === 2,
    );
    expect(collector.bytes().includes(secret)).toBe(false);
  });
});
