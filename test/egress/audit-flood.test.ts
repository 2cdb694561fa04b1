import { afterAll, beforeAll, expect, it } from 'vitest';
import { LIMITS } from '../../contracts/limits.ts';
import { createPool, type Pool } from '../../db/pool.ts';
import { loadEgressSession } from '../../db/queries/egress-policies.ts';
import type { AuditStart } from '../../egress/audit/writer.ts';
import { AuditWriter } from '../../egress/audit/writer.ts';
import { createLogger } from '../../telemetry/logger.ts';
import { head, NEVER, policyBed, type PolicyBed } from './support.ts';

const LONG_MS = 120_000;
const ROWS = LIMITS.egressRefusalsPerMinute;
const KINDS = LIMITS.egressRefusalKindsPerMinute;

let bed: PolicyBed;
let pool: Pool;
beforeAll(async () => {
  bed = await policyBed();
  pool = createPool({ databaseUrl: bed.databaseUrl, applicationName: 'test', max: 2 });
}, LONG_MS);
afterAll(async () => {
  await pool.end();
  await bed.close();
});

const REFUSAL: AuditStart = {
  sandboxId: 'sbx_loop',
  sessionId: 'sess_loop',
  teamId: 'team-a',
  state: 'denied',
  decision: 'deny',
  rule: 'unmatched',
  code: 'host_not_allowed',
  method: 'GET',
  host: 'evil.test',
  port: 443,
  isTls: true,
  path: '/x',
  status: 403,
  credentials: [],
  approvalId: null,
};

interface Row {
  seq: number;
  state: string;
  code: string | null;
  host: string | null;
  path: string | null;
  method: string | null;
  count: number;
}

async function rowsOf(sandboxId: string): Promise<Row[]> {
  const result = await pool.query<Row>(
    'SELECT seq, state, code, host, path, method, count FROM egress_requests WHERE sandbox_id = $1 ORDER BY seq',
    [sandboxId],
  );
  return result.rows;
}

const gapless = (rows: Row[]): void => expect(rows.map(({ seq }) => seq)).toEqual(rows.map((_row, at) => at + 1));
const total = (rows: Row[]): number => rows.reduce((sum, { count }) => sum + count, 0);
const writerAt = (nowMs: () => number): AuditWriter => new AuditWriter(pool, createLogger('test', 'silent'), { nowMs });

it(
  'beyond some a minute refusals of one kind are one row with their number, and the next minute begins anew',
  async () => {
    let minute = 0;
    const writer = writerAt(() => minute * 60_000);
    await writer.open('sbx_loop');
    const send = (times: number, change: Partial<AuditStart> = {}): string[] =>
      Array.from({ length: times }, () => writer.start({ ...REFUSAL, ...change }).row.id);
    send(ROWS);
    const shared = new Set(send(500));
    expect(shared.size).toBe(1);
    send(7, { code: 'rule_denied', host: 'other.test' });
    send(1, { code: 'rule_denied', host: 'other.test', path: '/y', method: 'PUT' });
    minute = 1;
    send(2);
    await writer.close();
    const rows = await rowsOf('sbx_loop');
    gapless(rows);
    expect(rows).toHaveLength(ROWS + 2 + 2);
    expect(rows[ROWS]).toMatchObject({ host: 'evil.test', path: '/x', method: 'GET', count: 500 });
    expect(rows[ROWS + 1]).toMatchObject({
      host: 'other.test',
      code: 'rule_denied',
      path: null,
      method: null,
      count: 8,
    });
    expect(rows.at(-1)).toMatchObject({ host: 'evil.test', count: 1 });
    const { rowCount } = await pool.query('SELECT 1 FROM egress_requests WHERE id = ANY($1)', [[...shared]]);
    expect(rowCount).toBe(1);
  },
  LONG_MS,
);

it(
  'a sandbox that asks for another host each time gets no more rows for it; what is allowed keeps its own',
  async () => {
    const writer = writerAt(() => 0);
    await writer.open('sbx_hosts');
    const hosts = ROWS + KINDS + 400;
    for (let sent = 0; sent < hosts; sent += 1) {
      writer.start({ ...REFUSAL, sandboxId: 'sbx_hosts', host: `h${sent}.test` });
    }
    for (let sent = 0; sent < 300; sent += 1) {
      const given = { ...REFUSAL, sandboxId: 'sbx_hosts', code: null, credentials: ['TOKEN'] };
      writer.start({ ...given, state: 'started', decision: 'allow' });
    }
    await writer.close();
    const rows = await rowsOf('sbx_hosts');
    gapless(rows);
    const refused = rows.filter(({ state }) => state === 'denied');
    expect(refused).toHaveLength(ROWS + KINDS + 1);
    expect(total(refused)).toBe(hosts);
    expect(refused.at(-1)).toMatchObject({ host: null, code: 'host_not_allowed', count: 400 });
    expect(rows.filter(({ state, count }) => state === 'started' && count === 1)).toHaveLength(300);
  },
  LONG_MS,
);

it(
  'what a looping sandbox asked for is counted wholly, in metrics and towards what its session may ask for too',
  async () => {
    const sessionId = await bed.session(undefined);
    const sandboxId = await bed.sandbox(sessionId);
    const engine = await bed.policies.open({ sessionId, sandboxId });
    const asked = 20 * ROWS;
    for (let sent = 0; sent < asked; sent += 1) await engine.request(head('https://evil.test/x'), NEVER);
    const { values } = await bed.registry.getSingleMetric('longhaul_egress_refusals_counted_total')!.get();
    await bed.restart();
    const rows = await rowsOf(sandboxId);
    gapless(rows);
    expect(total(rows)).toBe(asked);
    expect(rows.length).toBeLessThan(asked);
    expect(values[0]?.value).toBe(asked - rows.length);
    expect(await loadEgressSession(pool, sessionId)).toMatchObject({ requests: asked });
  },
  LONG_MS,
);

it(
  'a count is on disk although nothing else follows and nobody closes the writer',
  async () => {
    const writer = writerAt(() => 0);
    await writer.open('sbx_alone');
    for (let sent = 0; sent < ROWS + 50; sent += 1) writer.start({ ...REFUSAL, sandboxId: 'sbx_alone' });
    await expect.poll(async () => total(await rowsOf('sbx_alone')), { timeout: LONG_MS }).toBe(ROWS + 50);
    for (let sent = 0; sent < 25; sent += 1) writer.start({ ...REFUSAL, sandboxId: 'sbx_alone' });
    await expect.poll(async () => total(await rowsOf('sbx_alone')), { timeout: LONG_MS }).toBe(ROWS + 75);
    expect(await rowsOf('sbx_alone')).toHaveLength(ROWS + 1);
    await writer.close();
  },
  LONG_MS,
);
