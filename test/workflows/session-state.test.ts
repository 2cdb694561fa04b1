import { defaultPayloadConverter } from '@temporalio/common';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { LIMITS } from '../../contracts/limits.ts';
import type { InputMessage, SessionArgs } from '../../workflows/messages.ts';
import { SessionState } from '../../workflows/session/state.ts';

const ARGS: SessionArgs = {
  sessionId: 'sesn_1',
  title: 't',
  agent: { id: 'agent_1', version: 1, name: 'a' },
  limits: { maxStepsPerTurn: 5, turnTimeoutMs: 1_000, wallClockMs: 10_000, idleMs: 5_000, modelOutageMs: 1_000 },
  inputs: [],
};
const message = (eventId: string): InputMessage => ({ eventId, kind: 'message' });
const idOf = (prefix: string, index: number): string => `${prefix}_${String(index).padStart(26, '0')}`;
const restart = (state: SessionState): SessionState => new SessionState({ ...ARGS, carry: state.toCarry() }, 99);

describe('SessionState', () => {
  it('takes each input once, in order, whatever is delivered again and wherever the history is cut', () => {
    const ids = fc.array(fc.integer({ min: 0, max: 20 }).map(String), { maxLength: 60 });
    fc.assert(
      fc.property(ids, fc.array(fc.nat(60)), (deliveries, cuts) => {
        let state = new SessionState(ARGS, 0);
        deliveries.forEach((id, index) => {
          if (cuts.includes(index)) state = restart(state);
          state.accept(message(id));
        });
        expect(state.queue).toEqual([...new Set(deliveries)]);
      }),
    );
  });

  it('runs one message per turn and keeps the rest queued over continue-as-new', () => {
    let state = new SessionState({ ...ARGS, inputs: [message('a'), message('b')] }, 0);
    expect(state.beginTurn(1)).toMatchObject({ turn: 1, step: 0, eventIds: ['a'] });
    const open = state.beginTurn(5);
    open.step = 7;
    state = restart(state);
    expect(state.beginTurn(9)).toMatchObject({ turn: 1, step: 7, startedAtMs: 1 });
    state.endTurn(10);
    expect(state.beginTurn(11)).toMatchObject({ turn: 2, step: 0, eventIds: ['b'] });
  });

  it('counts the time of each turn by itself, also after one that was interrupted while it waited for people', () => {
    const state = new SessionState({ ...ARGS, inputs: [message('a'), message('b'), message('c')] }, 0);
    state.beginTurn(0);
    state.startWaiting(10);
    state.stopWaiting(110);
    expect(state.turnActiveMs(120)).toBe(20);
    state.startWaiting(120);
    expect(state.turnActiveMs(500)).toBe(20);
    state.endTurn(500);
    state.beginTurn(600);
    expect(state.turnActiveMs(607)).toBe(7);
  });

  it('goes on with what a run of an earlier version carried: whole messages', () => {
    const before = new SessionState(ARGS, 0).toCarry();
    const open = { turn: 3, step: 2, startedAtMs: 1, inputs: [{ ...message('a'), model: 'm' }] };
    const state = new SessionState({ ...ARGS, carry: { ...before, open, queue: [message('b')] } }, 9);
    expect(state.beginTurn(9)).toEqual({ turn: 3, step: 2, startedAtMs: 1, eventIds: ['a'] });
    state.accept(message('b'));
    expect(state.queue).toEqual(['b']);
  });

  it('keeps the first decision about an approval and remembers it when it comes before the question', () => {
    let state = new SessionState(ARGS, 0);
    state.decide({ approvalId: 'p', decision: 'allow' });
    state.decide({ approvalId: 'p', decision: 'deny' });
    state = restart(state);
    expect(state.isAnswered('p')).toBe(true);
    expect(state.decisions.get('p')?.decision).toBe('allow');
    state.accept({ eventId: 'e', kind: 'custom_tool_result', effectId: 'x' });
    expect(restart(state).isAnswered('x')).toBe(true);
  });

  it('carries an interrupt and a termination over continue-as-new', () => {
    const state = new SessionState({ ...ARGS, inputs: [message('a')] }, 0);
    state.beginTurn(1);
    state.interrupt('i');
    state.terminateReason = 'why';
    const next = restart(state);
    expect(next.interruptRequested).toBe(true);
    expect(next.controls).toEqual(['i']);
    expect(next.terminateReason).toBe('why');
    next.endTurn(2);
    expect(next.interruptRequested).toBe(false);
  });

  it('an interrupt without an open turn kills nothing later', () => {
    const state = new SessionState(ARGS, 0);
    state.interrupt('i');
    expect(state.interruptRequested).toBe(false);
    expect(state.takeControls()).toEqual(['i']);
  });

  it('refuses messages beyond its queue and after its end, but not a redelivery', () => {
    const state = new SessionState(ARGS, 0);
    for (let index = 0; index < LIMITS.queuedInputs; index += 1) state.accept(message(String(index)));
    expect(state.refusal(message('one more'))).toBe('queue_full');
    expect(state.refusal(message(String(LIMITS.queuedInputs - 1)))).toBeUndefined();
    // An answer is what lets a full queue move again.
    expect(state.refusal({ eventId: 'answer', kind: 'custom_tool_result', effectId: 'x' })).toBeUndefined();
    state.terminateReason = 'over';
    expect(state.refusal(message('late'))).toBe('closing');
  });

  it('is carried over in 64 KB with everything at its limit, and nothing that waits is left behind', () => {
    const args = { ...ARGS, title: '\u{1F600}'.repeat(LIMITS.titleChars / 2), notify: idOf('deployment/depl', 0) };
    const state = new SessionState(args, 0);
    for (let index = 0; index < 5_000; index += 1) {
      state.accept(message(idOf('sevt', index)));
      state.beginTurn(index);
      state.endTurn(index);
    }
    state.accept(message(idOf('sevt', 5_000)));
    state.beginTurn(1);
    for (let index = 5_001; index <= 5_000 + LIMITS.queuedInputs; index += 1)
      state.accept(message(idOf('sevt', index)));
    for (let index = 0; index < 3_000; index += 1) {
      const answer = { eventId: idOf('sevt', 10_000 + index), kind: 'custom_tool_result' as const };
      state.accept({ ...answer, effectId: idOf('sevt', 20_000 + index) });
      state.decide({ approvalId: idOf('appr', index), decision: 'allow', message: 'x'.repeat(5_000) });
    }
    state.terminate('why '.repeat(10_000));
    const payload = defaultPayloadConverter.toPayload({ ...args, inputs: [], carry: state.toCarry() });
    expect(payload?.data?.length).toBeLessThan(64 * 1024);
    expect(restart(state).queue).toEqual(state.queue);
    expect(state.queue).toHaveLength(LIMITS.queuedInputs);
    expect(restart(state).open).toEqual(state.open);
  });
});
