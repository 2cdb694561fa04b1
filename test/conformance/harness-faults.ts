import { expect, it } from 'vitest';
import { scriptText } from '../gateway/support.ts';
import type { FaultExpectation, ModelFault } from './harness-bed.ts';
import type { HarnessBench } from './harness.suite.ts';

/** Longer than any case lasts: the model never answers. */
const NEVER_MS = 600_000;
/** What a stalled harness is given in these cases. */
const IDLE_MS = 4_000;
const PATIENT_MS = 150_000;

const FAULTS: Record<ModelFault, { step: object; expected: FaultExpectation }> = {
  '400': {
    step: { error: { status: 400, type: 'invalid_request_error', message: 'that is no request' } },
    expected: { ends: ['bad_request'] },
  },
  // The key of the session is no longer good; a provider's own 401 is a 502 for callers of the gateway.
  '401': { step: { text: 'never' }, expected: { ends: ['auth'] } },
  '429-endless': {
    step: { error: { status: 429, type: 'rate_limit_error', message: 'not so fast' } },
    expected: { ends: ['rate_limit'] },
  },
  '429-then-ok': {
    step: { text: 'in the end', error: { status: 429, type: 'rate_limit_error', times: 1 } },
    expected: { ends: 'completed' },
  },
  '500-then-ok': { step: { text: 'in the end', error: { status: 500, times: 1 } }, expected: { ends: 'completed' } },
  'bad-sse': {
    step: { raw: { contentType: 'text/event-stream', body: 'data: {"oops\n\ndata: [nonsense\n\n' } },
    expected: { ends: ['overloaded'] },
  },
  html: {
    step: { raw: { contentType: 'text/html', body: '<!doctype html><h1>Sign in</h1>' } },
    expected: { ends: ['overloaded'] },
  },
  cut: { step: { text: 'half of a sentence', chunks: 6, cutAfterChunks: 3 }, expected: { ends: ['overloaded'] } },
  'no-reply': { step: { text: 'late', delayMs: NEVER_MS }, expected: { ends: ['stalled'], isIdle: true } },
};

/** Each fault ends the turn, in the right class, and never as a success; the session goes on with a model that works. */
export function faultParts(bench: HarnessBench): void {
  it.each(Object.keys(FAULTS) as ModelFault[])('%s', async (fault) => {
    const { step, expected: usual } = FAULTS[fault];
    const expected = bench.under().faults?.[fault] ?? usual;
    const isIdle = 'isIdle' in expected && (expected.isIdle ?? false);
    const model = { baseUrl: bench.world().tap.url, key: 'lh_no_key_of_anybody' };
    const talk = await bench.talk(fault === '401' ? { model } : {});
    const { host, ending } = await talk.run(scriptText([step], fault), {
      turn: 1,
      limits: { idleMs: isIdle ? IDLE_MS : PATIENT_MS, retries: bench.under().retries ?? 2 },
    });
    if (expected.ends === 'completed') {
      expect(ending).toEqual({ kind: 'completed', stopReason: 'end_turn' });
      expect(host.said()).toBe('in the end');
      return;
    }
    expect(ending.kind, JSON.stringify(ending)).toBe('failed');
    expect(expected.ends, JSON.stringify(ending)).toContain(ending.kind === 'failed' ? ending.fault : ending.kind);
    expect(JSON.stringify(ending)).not.toContain(talk.key);
    if (fault === '401') return;
    const next = await talk.run(scriptText([{ text: 'better now' }]), { turn: 2 });
    expect(next.ending.kind).toBe('completed');
    expect(next.host.said()).toContain('better now');
  });
}
