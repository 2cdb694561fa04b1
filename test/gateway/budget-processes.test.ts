import type { Server, ServerResponse } from 'node:http';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { isAllReleased, listenAsProvider, makeBudget, windowOf, WIRES } from './budget-support.ts';
import { startGatewayProcess, type GatewayProcess } from './gateway-process.ts';
import { createSession, eventually, ledgerRows, mintKey, openTestBed, post, stop, type TestBed } from './support.ts';

let bed: TestBed;
let provider: { url: string; server: Server };
let answer: (res: ServerResponse, body: Record<string, unknown>) => void;
let gateways: GatewayProcess[] = [];

const started: GatewayProcess[] = [];

async function start(): Promise<GatewayProcess> {
  const gateway = await startGatewayProcess({
    DATABASE_URL: bed.databaseUrl,
    LONGHAUL_GATEWAY_LEASE_MS: '1000',
    ANTHROPIC_BASE_URL: provider.url,
    ANTHROPIC_API_KEY: 'provider-key',
  });
  started.push(gateway);
  return gateway;
}

beforeAll(async () => {
  bed = await openTestBed();
  provider = await listenAsProvider((_req, res, body) => answer(res, body));
  gateways = await Promise.all([start(), start()]);
});
afterAll(async () => {
  await Promise.all(started.map((gateway) => gateway.kill()));
  await stop(provider.server);
  await bed.close();
});

const PATIENCE = 180_000;
const OUTPUT_PRICE = 25;
const costOf = (inputTokens: number, outputTokens: number): number => inputTokens * 5 + outputTokens * OUTPUT_PRICE;
const body = (maxTokens: number, more: object = {}): Record<string, unknown> => ({
  model: 'claude-opus-5',
  max_tokens: maxTokens,
  messages: [],
  ...more,
});
/** What the gateway takes the input of a request for. */
const estimateOf = (request: object): number => Math.ceil(Buffer.byteLength(JSON.stringify(request)) / 4);

async function sessionWithPool(hardLimitMicros: number): Promise<{ key: string; budgetId: string; sessionId: string }> {
  const sessionId = await createSession(bed.pool);
  const budget = await makeBudget(bed.pool, ['session', sessionId], { hardLimitMicros });
  return { sessionId, budgetId: budget.id, key: await mintKey(bed.pool, { sessionId, maxParallel: 1_000 }) };
}

const sumOf = async (sessionId: string): Promise<number> =>
  (await ledgerRows(bed.pool))
    .filter((row) => row['session_id'] === sessionId)
    .reduce((sum, row) => sum + Number(row['cost_micros']), 0);

describe('two gateways', () => {
  it('let a hundred calls at once spend what there is and not more', { timeout: PATIENCE }, async () => {
    const request = body(100);
    const each = costOf(estimateOf(request), 100);
    const { key, budgetId, sessionId } = await sessionWithPool(each * 30 + each / 2);
    let running = 0;
    let most = 0;
    answer = (res) => {
      running += 1;
      most = Math.max(most, running);
      // Nobody ends before many have begun.
      const end = (): void => {
        running -= 1;
        res.end(JSON.stringify(WIRES.messages.whole(estimateOf(request), 100)));
      };
      setTimeout(end, 300);
    };
    const ask = async (index: number): Promise<number> => {
      const response = await post(`${gateways[index % 2]!.url}/v1/messages`, key, request);
      await response.text();
      return response.status;
    };
    const statuses = await Promise.all(Array.from({ length: 100 }, (_, index) => ask(index)));
    let served = statuses.filter((status) => status === 200).length;
    expect(statuses.filter((status) => status !== 200 && status !== 402)).toEqual([]);
    expect(most).toBeGreaterThan(10);
    expect(served).toBeLessThanOrEqual(30);
    // On a busy machine a call is refused before the other gateway has given back what it does not use: it is there later.
    await eventually(async () => {
      if (served < 30 && (await ask(0)) === 200) served += 1;
      return served === 30;
    });
    expect(await ask(1)).toBe(402);
    await eventually(() => isAllReleased(bed.pool));
    const { spent } = await windowOf(bed.pool, budgetId);
    // What each was held for is what it cost: not one too many, and nobody went short of what others only held.
    expect(spent).toBe(30 * each);
    expect(spent).toBe(await sumOf(sessionId));
  });

  it('use what the other one does not', { timeout: PATIENCE }, async () => {
    const request = body(100);
    const each = costOf(estimateOf(request), 100);
    const { key } = await sessionWithPool(each * 3);
    answer = (res) => void res.end(JSON.stringify(WIRES.messages.whole(estimateOf(request), 100)));
    const ask = async (index: number): Promise<number> => {
      const response = await post(`${gateways[index]!.url}/v1/messages`, key, request);
      await response.text();
      return response.status;
    };
    // On a busy machine the other one may give back what it holds later than a call waits for it: asked again, it is there.
    let served = 0;
    await eventually(async () => {
      if ((await ask(served % 2)) === 200) served += 1;
      return served === 3;
    });
    expect([await ask(1), await ask(0)]).toEqual([402, 402]);
  });
});

describe('a gateway that is killed with calls under way', () => {
  it('leaves nothing held, and what its calls used is paid', { timeout: PATIENCE }, async () => {
    const { key, budgetId, sessionId } = await sessionWithPool(20_000_000);
    const victim = await start();
    const open: ServerResponse[] = [];
    answer = (res) => {
      open.push(res);
      res.writeHead(200, { 'content-type': 'text/event-stream' });
      res.write(WIRES.messages.start(200) + WIRES.messages.delta('x'.repeat(400)));
    };
    const request = body(50_000, { stream: true });
    const answers = await Promise.all(
      Array.from({ length: 10 }, () => post(`${victim.url}/v1/messages`, key, request)),
    );
    const texts = answers.map((response) => response.text().catch(() => 'broken'));
    // The notes have come as far as the answers.
    await eventually(async () => {
      const noted = await bed.pool.query(
        `SELECT 1 FROM call_intents WHERE entry #>> '{usage,outputTokens}' = '100' AND entry #>> '{usage,inputTokens}' = '200'`,
      );
      return noted.rowCount === 10;
    });
    expect((await windowOf(bed.pool, budgetId)).reserved).toBeGreaterThanOrEqual(10 * costOf(1, 50_000) - costOf(0, 1));
    await victim.kill();
    expect(await Promise.all(texts)).toEqual(Array.from({ length: 10 }, () => 'broken'));
    await eventually(() => isAllReleased(bed.pool));
    const rows = (await ledgerRows(bed.pool)).filter((row) => row['session_id'] === sessionId);
    expect(rows).toHaveLength(10);
    for (const row of rows) {
      expect(row).toMatchObject({
        usage_basis: 'estimated',
        error: 'gateway_lost',
        input_tokens: 200,
        output_tokens: 100,
      });
    }
    expect((await windowOf(bed.pool, budgetId)).spent).toBe(10 * costOf(200, 100));
  });

  it('has its keyed call completed once by another', { timeout: PATIENCE }, async () => {
    const { key, budgetId, sessionId } = await sessionWithPool(20_000_000);
    const victim = await start();
    let asked = 0;
    let completed = 0;
    answer = (res) => {
      asked += 1;
      res.writeHead(200, { 'content-type': 'text/event-stream' });
      res.write(WIRES.messages.start(200) + WIRES.messages.delta('x'.repeat(400)));
      if (asked === 1) return;
      completed += 1;
      res.end(WIRES.messages.delta('y'.repeat(400)) + WIRES.messages.end(200, 200));
    };
    const ask = (url: string): Promise<Response> =>
      post(`${url}/v1/messages`, key, body(50_000, { stream: true }), { 'idempotency-key': `${sessionId}/0/0` });
    const broken = (await ask(victim.url)).text().catch(() => 'broken');
    await eventually(async () => {
      const noted = await bed.pool.query(`SELECT 1 FROM call_intents WHERE entry #>> '{usage,outputTokens}' = '100'`);
      return noted.rowCount === 1;
    });
    await victim.kill();
    expect(await broken).toBe('broken');
    const answers = await Promise.all(gateways.map(async ({ url }) => (await ask(url)).text()));
    expect(answers[0]).toContain('message_stop');
    expect(answers[1]).toBe(answers[0]);
    expect([asked, completed]).toEqual([2, 1]);
    await eventually(() => isAllReleased(bed.pool));
    const rows = (await ledgerRows(bed.pool)).filter((row) => row['session_id'] === sessionId);
    // One row for the step: the completed answer, and by estimate what the dead attempt had streamed.
    expect(rows).toHaveLength(1);
    expect(rows[0]).toMatchObject({ input_tokens: 400, output_tokens: 300, usage_basis: 'estimated' });
    expect((await windowOf(bed.pool, budgetId)).spent).toBe(costOf(400, 300));
  });
});
