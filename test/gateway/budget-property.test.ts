import fc from 'fast-check';
import type { Server, ServerResponse } from 'node:http';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { isAllReleased, listenAsProvider, makeBudget, windowOf, WIRES } from './budget-support.ts';
import { startGatewayProcess, type GatewayProcess } from './gateway-process.ts';
import { createSession, eventually, ledgerRows, mintKey, openTestBed, stop, type TestBed } from './support.ts';

/** One call of the random traffic. */
interface Plan {
  kind: 'stream' | 'whole' | 'keyed';
  gateway: 0 | 1;
  /** Pieces of the answer and tokens in each. */
  pieces: number;
  tokens: number;
  /** How the first attempt at the provider goes. */
  fate: 'good' | 'error' | 'cut';
  /** The caller leaves after this many pieces. */
  leavesAfter: number | null;
  /** Another caller asks under the same key at the same time. */
  isDoubled: boolean;
}

const plan: fc.Arbitrary<Plan> = fc.record({
  kind: fc.constantFrom('stream', 'whole', 'keyed'),
  gateway: fc.constantFrom(0, 1),
  pieces: fc.integer({ min: 1, max: 6 }),
  tokens: fc.integer({ min: 10, max: 60 }),
  fate: fc.constantFrom('good', 'good', 'good', 'error', 'cut'),
  leavesAfter: fc.option(fc.integer({ min: 1, max: 5 }), { nil: null, freq: 3 }),
  isDoubled: fc.boolean(),
});
const traffic = fc.record({
  plans: fc.array(plan, { minLength: 12, maxLength: 30 }),
  /** Gateways to kill, each after so many calls have ended. */
  kills: fc.array(fc.record({ gateway: fc.constantFrom<0 | 1>(0, 1), afterCalls: fc.integer({ min: 1, max: 12 }) }), {
    maxLength: 2,
  }),
  /** Share of what the direct calls would cost that their pool has. */
  share: fc.constantFrom(0.3, 0.7, 2),
});

/** What the provider did for one call: its own count of what it bills. */
interface Bill {
  asked: number;
  completed: number;
  inputTokens: number;
  outputTokens: number;
}

/** One call while it runs: the provider sends the next piece when the caller has the one before. */
class Call {
  readonly plan: Plan;
  readonly bill: Bill = { asked: 0, completed: 0, inputTokens: 0, outputTokens: 0 };
  key = '';
  keyId = '';
  callKey: string | undefined;
  /** It ran, or had just ended, on a gateway that was killed. */
  isKilled = false;
  endedAtMs: number | undefined;
  status: number | undefined;
  #received = 0;
  #waiting: (() => void)[] = [];
  #isLeft = false;

  constructor(from: Plan) {
    this.plan = from;
  }

  receive(pieces: number): void {
    this.#received = Math.max(this.#received, pieces);
    this.#wake();
  }

  /** Nobody takes pieces any more: the provider need not wait. */
  leave(): void {
    this.#isLeft = true;
    this.#wake();
  }

  async hasReceived(pieces: number): Promise<void> {
    while (this.#received < pieces && !this.#isLeft) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}

const PRICE = { input: 5, output: 25 };
/** The ledger rows of calls that ended so shortly before a kill may not have been written. */
const JUST_ENDED_MS = 2_000;
const TEST_MS = 60_000;

let bed: TestBed;
let provider: { url: string; server: Server };
let gateways: [GatewayProcess, GatewayProcess];
let calls = new Map<string, Call>();

const start = (): Promise<GatewayProcess> =>
  startGatewayProcess({
    DATABASE_URL: bed.databaseUrl,
    // Longer than a busy machine lets a living process wait.
    LONGHAUL_GATEWAY_LEASE_MS: '5000',
    ANTHROPIC_BASE_URL: provider.url,
    ANTHROPIC_API_KEY: 'provider-key',
  });

beforeAll(async () => {
  bed = await openTestBed();
  provider = await listenAsProvider((_req, res, body) => {
    const call = calls.get((body['metadata'] as { user_id: string }).user_id);
    if (call === undefined) res.writeHead(404).end();
    else void provide(call, res, Math.ceil(Buffer.byteLength(JSON.stringify(body)) / 4));
  });
  gateways = await Promise.all([start(), start()]);
});
afterAll(async () => {
  await Promise.all(gateways.map((gateway) => gateway.kill()));
  await stop(provider.server);
  await bed.close();
});

/** The provider: bills the input when it begins, and each piece when it sends it. */
async function provide(call: Call, res: ServerResponse, inputTokens: number): Promise<void> {
  const { plan: todo, bill } = call;
  bill.asked += 1;
  const fate = bill.asked === 1 ? todo.fate : 'good';
  res.on('close', () => call.leave());
  if (fate === 'error') {
    res.writeHead(500, { 'content-type': 'application/json' }).end('{"type":"error","error":{"message":"no"}}');
    return;
  }
  const outputTokens = todo.pieces * todo.tokens;
  if (todo.kind === 'whole') {
    if (fate === 'cut') {
      res.destroy();
      return;
    }
    bill.inputTokens += inputTokens;
    bill.outputTokens += outputTokens;
    bill.completed += 1;
    res.end(JSON.stringify(WIRES.messages.whole(inputTokens, outputTokens)));
    return;
  }
  bill.inputTokens += inputTokens;
  res.writeHead(200, { 'content-type': 'text/event-stream' });
  res.write(WIRES.messages.start(inputTokens));
  let sent = 0;
  // A keyed call goes on without its caller, so nobody is waited for unless the provider is about to cut it.
  const isPaced = todo.kind === 'stream' || fate === 'cut';
  while (!res.destroyed && sent < todo.pieces) {
    sent += 1;
    bill.outputTokens += todo.tokens;
    res.write(WIRES.messages.delta('word'.repeat(todo.tokens)));
    if (isPaced) await call.hasReceived(sent);
    else await new Promise((resolve) => setTimeout(resolve, 2));
    if (fate === 'cut' && !res.destroyed) {
      // The connection breaks; what was sent has arrived.
      res.destroy();
      return;
    }
  }
  if (res.destroyed) return;
  bill.completed += 1;
  res.end(WIRES.messages.end(inputTokens, outputTokens));
}

/** Reads an answer; true when it was whole. */
async function read(call: Call, response: Response, leaver: AbortController | undefined): Promise<boolean> {
  let text = '';
  const decoder = new TextDecoder();
  try {
    for await (const part of response.body ?? []) {
      text += decoder.decode(part as Uint8Array, { stream: true });
      const pieces = text.split('event: content_block_delta').length - 1;
      if (leaver !== undefined && call.plan.leavesAfter !== null && pieces >= call.plan.leavesAfter) {
        leaver.abort();
        return false;
      }
      call.receive(pieces);
    }
  } catch {
    return false;
  }
  return call.plan.kind === 'whole' ? text.includes('"usage"') : text.includes('message_stop');
}

function bodyOf(call: Call, id: string): object {
  const { kind, pieces, tokens } = call.plan;
  return {
    model: 'claude-opus-5',
    max_tokens: pieces * tokens,
    stream: kind !== 'whole',
    metadata: { user_id: id },
    messages: [],
  };
}

async function attempt(call: Call, id: string, gateway: 0 | 1, leaver?: AbortController): Promise<boolean | undefined> {
  const headers: Record<string, string> = {
    'content-type': 'application/json',
    'x-api-key': call.key,
    ...(call.callKey === undefined ? {} : { 'idempotency-key': call.callKey }),
  };
  try {
    const response = await fetch(`${gateways[gateway].url}/v1/messages`, {
      method: 'POST',
      headers,
      body: JSON.stringify(bodyOf(call, id)),
      ...(leaver === undefined ? {} : { signal: leaver.signal }),
    });
    call.status = response.status;
    const isWhole = await read(call, response, leaver);
    return response.status === 200 ? isWhole : undefined;
  } catch {
    return false;
  }
}

/** As a careful client: a keyed call is asked until it is answered, any other call once. */
async function run(call: Call, id: string): Promise<void> {
  const { kind, gateway, leavesAfter } = call.plan;
  if (kind !== 'keyed') {
    await attempt(call, id, gateway, leavesAfter === null ? undefined : new AbortController());
  } else {
    const doubled = call.plan.isDoubled ? untilWhole(call, id, gateway === 0 ? 1 : 0) : undefined;
    if (leavesAfter !== null && call.plan.fate !== 'cut') await attempt(call, id, gateway, new AbortController());
    await Promise.all([untilWhole(call, id, gateway), doubled]);
  }
  // A provider whose caller left is told by the gateway: it must not go on before.
  if (kind === 'keyed') call.leave();
  call.endedAtMs = Date.now();
}

async function untilWhole(call: Call, id: string, first: 0 | 1): Promise<void> {
  for (let index: number = first; (await attempt(call, id, (index % 2) as 0 | 1)) !== true; index += 1) {
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function kill(index: 0 | 1): Promise<void> {
  const victim = gateways[index];
  const nowMs = Date.now();
  for (const call of calls.values()) {
    const ranThere = call.plan.kind === 'keyed' || call.plan.gateway === index;
    if (ranThere && (call.endedAtMs ?? nowMs) > nowMs - JUST_ENDED_MS) call.isKilled = true;
  }
  await victim.kill();
  gateways[index] = await start();
}

const costOf = (bill: Pick<Bill, 'inputTokens' | 'outputTokens'>): number =>
  bill.inputTokens * PRICE.input + bill.outputTokens * PRICE.output;

it(
  'the ledger is the provider’s own count, nothing stays held, and no pool is overdrawn',
  { timeout: 3 * TEST_MS },
  async () => {
    let round = 0;
    const property = fc.asyncProperty(traffic, async ({ plans, kills, share }) => {
      round += 1;
      const all = plans.map((each) => new Call(each));
      const [scarce, ample] = [await createSession(bed.pool), await createSession(bed.pool)];
      const direct = all.filter((call) => call.plan.kind !== 'keyed');
      const wanted = direct.reduce(
        (sum, call) => sum + costOf({ inputTokens: 40, outputTokens: call.plan.pieces * call.plan.tokens }),
        0,
      );
      const limit = Math.max(10_000, Math.ceil(wanted * share));
      const pools = {
        scarce: await makeBudget(bed.pool, ['session', scarce], { hardLimitMicros: limit }),
        ample: await makeBudget(bed.pool, ['session', ample], { hardLimitMicros: 1_000_000_000 }),
      };
      for (const [index, call] of all.entries()) {
        const isKeyed = call.plan.kind === 'keyed';
        call.key = await mintKey(bed.pool, { sessionId: isKeyed ? ample : scarce, maxParallel: 100 });
        if (isKeyed) call.callKey = `${ample}/${round}/${index}`;
      }
      const keyIds = await bed.pool.query<{ id: string }>(
        'SELECT id FROM virtual_keys WHERE session_id = ANY($1) ORDER BY id',
        [[scarce, ample]],
      );
      expect(keyIds.rowCount).toBe(all.length);
      for (const call of all) call.keyId = await keyIdOf(call.key);
      calls = new Map(all.map((call, index) => [`call-${round}-${index}`, call]));

      let ended = 0;
      const killing: Promise<void>[] = [];
      const due = [...kills];
      const onEnded = (): void => {
        ended += 1;
        for (const next of due.filter(({ afterCalls }) => afterCalls <= ended)) {
          due.splice(due.indexOf(next), 1);
          // One after the other: somebody has to be there to take over.
          killing.push((killing.at(-1) ?? Promise.resolve()).then(() => kill(next.gateway)));
        }
      };
      await Promise.all([...calls].map(([id, call]) => run(call, id).then(onEnded)));
      await Promise.all(killing);
      await eventually(() => isAllReleased(bed.pool));

      const rows = (await ledgerRows(bed.pool)).filter(
        (row) => row['session_id'] === scarce || row['session_id'] === ample,
      );
      for (const call of all) {
        const own = rows.filter((row) => row['virtual_key_id'] === call.keyId);
        const sum = {
          inputTokens: own.reduce((total, row) => total + Number(row['input_tokens']), 0),
          outputTokens: own.reduce((total, row) => total + Number(row['output_tokens']), 0),
        };
        const { bill } = call;
        const said = JSON.stringify({ plan: call.plan, bill, sum, isKilled: call.isKilled, status: call.status });
        if (call.plan.kind === 'keyed') {
          // Answered in the end, and paid for one whole answer, whatever happened on the way.
          expect(bill.completed, said).toBeGreaterThanOrEqual(1);
          expect(own, said).toHaveLength(1);
          if (!call.isKilled)
            expect([bill.completed, bill.asked], said).toEqual([1, call.plan.fate === 'good' ? 1 : 2]);
          // The one completed answer is in the ledger whole.
          expect(sum.outputTokens, said).toBeGreaterThanOrEqual(call.plan.pieces * call.plan.tokens);
        }
        if (call.isKilled) {
          // By the notes of the dead gateway: never more than was billed, but for the one token a stream begins with.
          expect(sum.outputTokens, said).toBeLessThanOrEqual(bill.outputTokens + bill.asked);
          continue;
        }
        expect(sum.inputTokens, said).toBe(bill.inputTokens);
        expect(sum.outputTokens, said).toBe(bill.outputTokens);
      }
      const total = (sessionId: string): number =>
        rows.filter((row) => row['session_id'] === sessionId).reduce((sum, row) => sum + Number(row['cost_micros']), 0);
      expect((await windowOf(bed.pool, pools.scarce.id)).spent).toBe(total(scarce));
      expect((await windowOf(bed.pool, pools.ample.id)).spent).toBe(total(ample));
      // At most one piece of each stream beyond what was held for it.
      const beyond = direct.reduce((sum, call) => sum + call.plan.tokens * PRICE.output, 0);
      expect(total(scarce)).toBeLessThanOrEqual(limit + beyond);
      if (direct.every((call) => !call.isKilled)) expect(total(scarce)).toBeLessThanOrEqual(limit);
    });
    await fc.assert(property, {
      numRuns: 8,
      interruptAfterTimeLimit: TEST_MS - 10_000,
      markInterruptAsFailure: false,
      endOnFailure: true,
    });
  },
);

async function keyIdOf(key: string): Promise<string> {
  const result = await bed.pool.query<{ id: string }>(
    `SELECT id FROM virtual_keys WHERE key_hash = sha256(convert_to($1, 'UTF8'))`,
    [key],
  );
  return result.rows[0]!.id;
}
