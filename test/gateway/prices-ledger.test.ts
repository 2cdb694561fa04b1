import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { newId } from '../../contracts/ids.ts';
import { recordLedgerEntries, type LedgerEntry } from '../../db/queries/ledger.ts';
import { ledgerRows, openTestBed, type TestBed } from './support.ts';

let bed: TestBed;
beforeAll(async () => {
  bed = await openTestBed();
});
afterAll(() => bed.close());

function entry(callKey: string | undefined, tokens: number, costMicros: number | null = tokens): LedgerEntry {
  const id = newId('ledger');
  return {
    id,
    callKey: callKey ?? id,
    attribution: {
      teamId: 'team',
      userId: 'user',
      keyId: 'key',
      sessionId: null,
      rootSessionId: null,
      threadId: 'th_1',
      agentId: 'agent_1',
      agentVersion: 3,
      deploymentId: 'depl_1',
      harness: 'native',
      runtime: null,
      repo: 'acme/shop',
      labels: ['nightly', 'a "quoted" one'],
      trigger: 'schedule',
    },
    turn: 1,
    step: 2,
    virtualKeyId: null,
    protocol: 'messages',
    provider: 'scripted',
    model: 'scripted',
    requestedModel: 'fast',
    modelDeployment: null,
    usage: {
      inputTokens: tokens,
      cacheReadTokens: tokens,
      cacheWrite5mTokens: tokens,
      cacheWrite1hTokens: tokens,
      outputTokens: tokens,
      reasoningTokens: tokens,
    },
    costMicros,
    usageBasis: 'reported',
    ttftMs: null,
    latencyMs: 10,
    httpStatus: 200,
    error: null,
  };
}

describe('rows of the ledger', () => {
  it('keep every dimension of their call', async () => {
    const written = entry(undefined, 7);
    expect(await recordLedgerEntries(bed.pool, [written])).toEqual(new Set([written.id]));
    const row = (await ledgerRows(bed.pool)).find(({ id }) => id === written.id);
    expect(row).toMatchObject({
      call_key: written.id,
      team_id: 'team',
      thread_id: 'th_1',
      agent_id: 'agent_1',
      agent_version: 3,
      deployment_id: 'depl_1',
      harness: 'native',
      runtime: null,
      repo: 'acme/shop',
      labels: ['nightly', 'a "quoted" one'],
      trigger: 'schedule',
      requested_model: 'fast',
      turn: 1,
      step: 2,
      output_tokens: 7,
      cost_micros: 7,
    });
  });

  it('are written many at a time, one a call, however often a batch is repeated and wherever it is cut', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.record({ key: fc.integer({ min: 0, max: 4 }), tokens: fc.integer({ min: 0, max: 1_000 }) }), {
          maxLength: 12,
        }),
        fc.array(fc.integer({ min: 0, max: 12 }), { maxLength: 4 }),
        async (calls, cuts) => {
          await bed.pool.query('DELETE FROM ledger');
          const entries = calls.map(({ key, tokens }) => entry(`k${key}`, tokens));
          const seen = new Set<string>();
          const at = [0, ...cuts.map((cut) => Math.min(cut, entries.length)).sort((a, b) => a - b), entries.length];
          for (const [index, start] of at.slice(0, -1).entries()) {
            const batch = entries.slice(start, at[index + 1]);
            for (const id of await recordLedgerEntries(bed.pool, batch)) seen.add(id);
            // The answer to the commit was lost: the same batch comes again.
            expect(await recordLedgerEntries(bed.pool, batch)).toEqual(new Set());
          }
          expect(seen).toEqual(new Set(entries.map(({ id }) => id)));
          expect(await recordLedgerEntries(bed.pool, entries)).toEqual(new Set());
          const rows = await ledgerRows(bed.pool);
          const expected = new Map<string, number>();
          for (const { key, tokens } of calls) expected.set(`k${key}`, (expected.get(`k${key}`) ?? 0) + tokens);
          expect(new Map(rows.map((row) => [row['call_key'], row['output_tokens']]))).toEqual(expected);
          expect(new Map(rows.map((row) => [row['call_key'], row['cost_micros']]))).toEqual(expected);
        },
      ),
      { numRuns: 40 },
    );
  }, 120_000);

  it('have no cost when one of the calls under their key had none', async () => {
    await recordLedgerEntries(bed.pool, [entry('mixed', 5), entry('mixed', 5, null)]);
    const row = (await ledgerRows(bed.pool)).find((found) => found['call_key'] === 'mixed');
    expect(row).toMatchObject({ output_tokens: 10, cost_micros: null });
  });
});
