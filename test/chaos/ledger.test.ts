import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { recordLedgerEntries, type LedgerEntry } from '../../db/queries/ledger.ts';
import { testDatabase } from '../support/postgres.ts';

const ENTRY: LedgerEntry = {
  id: 'call_1',
  callKey: 'sesn_1/1/0',
  attribution: {
    teamId: 'team',
    userId: 'user',
    keyId: 'key',
    sessionId: null,
    rootSessionId: null,
    threadId: null,
    agentId: null,
    agentVersion: null,
    deploymentId: null,
    harness: null,
    runtime: null,
    repo: null,
    labels: [],
    trigger: null,
  },
  turn: null,
  step: null,
  virtualKeyId: null,
  protocol: 'messages',
  provider: 'scripted',
  model: 'scripted',
  requestedModel: 'scripted',
  modelDeployment: null,
  usage: {
    inputTokens: 10,
    cacheReadTokens: 0,
    cacheWrite5mTokens: 0,
    cacheWrite1hTokens: 0,
    outputTokens: 3,
    reasoningTokens: 0,
  },
  costMicros: 40,
  usageBasis: 'reported',
  ttftMs: 1,
  latencyMs: 2,
  httpStatus: 200,
  error: null,
};

describe('a ledger entry', () => {
  let database: Awaited<ReturnType<typeof testDatabase>>;
  let client: pg.Client;
  beforeAll(async () => {
    database = await testDatabase();
    client = new pg.Client({ connectionString: database.url });
    await client.connect();
  });
  afterAll(async () => {
    await client.end();
    await database.drop();
  });
  const sums = async (): Promise<unknown> =>
    (await client.query('SELECT input_tokens, output_tokens, cost_micros FROM ledger')).rows.map((row: object) =>
      Object.values(row).map(Number),
    );

  it('counts once when Postgres died before it said that it was committed, and adds what was paid again', async () => {
    await recordLedgerEntries(client, [ENTRY]);
    await recordLedgerEntries(client, [ENTRY]);
    expect(await sums()).toEqual([[10, 3, 40]]);
    await recordLedgerEntries(client, [{ ...ENTRY, id: 'call_2' }]);
    expect(await sums()).toEqual([[20, 6, 80]]);
  });
});
