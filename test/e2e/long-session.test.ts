import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { checkInvariants } from '../support/invariants.ts';
import { recorded } from '../support/recorder.ts';
import { bash, type ScriptStep, SessionDriver, STACK_TEST_MS } from '../support/session-driver.ts';
import { startStack, type TestStack } from '../support/stack.ts';

const STEPS = 200;

describe('a session of 200 steps', { timeout: STACK_TEST_MS }, () => {
  let stack: TestStack;
  let driver: SessionDriver;
  beforeAll(async () => {
    stack = await startStack();
    driver = new SessionDriver(stack);
  });
  afterAll(async () => {
    await driver.close();
    await stack.stop();
  });

  it('continues as new on its way and keeps its order', async () => {
    const script = Array.from({ length: STEPS }, (_, index): ScriptStep => {
      const read = { name: 'read', input: { file_path: '/workspace/effects.log' } };
      return { tools: [index % 2 === 0 ? bash(recorded(`step${index}`)) : read] };
    });
    const session = await driver.open([...script, { text: 'the end' }]);
    await driver.quiet([session]);
    expect(await driver.turnEnds(session)).toEqual(['end_turn']);

    const steps = await driver.query<{ step: number }>('SELECT step FROM steps WHERE session_id = $1 ORDER BY step', [
      session,
    ]);
    expect(steps.map(({ step }) => step)).toEqual(Array.from({ length: STEPS + 1 }, (_, index) => index));
    const called = await driver.query<{ step: number }>(
      `SELECT e.step FROM events v JOIN effects e ON e.id = v.id WHERE v.session_id = $1 ORDER BY v.seq`,
      [session],
    );
    expect(called.map(({ step }) => step)).toEqual(Array.from({ length: STEPS }, (_, index) => index));
    for (const index of [0, 100, STEPS - 2]) {
      expect(await driver.recorder.traces(session, `step${index}`)).toEqual({ starts: 1, ends: 1 });
    }
    await checkInvariants(driver.query, session, { recorder: driver.recorder, temporal: await driver.temporal() });

    const runs = await chain(session);
    expect(runs.length).toBeGreaterThan(1);
    expect(runs.map(({ end }) => end)).toEqual([
      ...runs.slice(1).map(() => 'workflowExecutionContinuedAsNewEventAttributes'),
      'none',
    ]);
    // Every run is within the limit that cuts it, and together they made each step once.
    for (const { events } of runs) expect(events).toBeLessThan(2_000);
    expect(runs.flatMap(({ stepsScheduled }) => stepsScheduled)).toEqual(
      Array.from({ length: STEPS + 1 }, (_, index) => index),
    );
  });

  interface Run {
    runId: string;
    end: string;
    events: number;
    stepsScheduled: number[];
  }

  /** The runs of a session's workflow, oldest first, as Temporal's histories tell. */
  async function chain(session: string): Promise<Run[]> {
    const client = await driver.temporal();
    const workflowId = `session/${session}`;
    const runs: Run[] = [];
    let runId: string | undefined = (await client.workflow.getHandle(workflowId).describe()).raw.workflowExecutionInfo
      ?.firstRunId as string | undefined;
    while (runId !== undefined && runId !== '') {
      const { events = [] } = await client.workflow.getHandle(workflowId, runId).fetchHistory();
      const last = events?.at(-1);
      const next: string | null | undefined = last?.workflowExecutionContinuedAsNewEventAttributes?.newExecutionRunId;
      const stepsScheduled = (events ?? []).flatMap((event) => {
        const scheduled = event.activityTaskScheduledEventAttributes;
        if (scheduled?.activityType?.name !== 'modelStep') return [];
        const data = scheduled.input?.payloads?.[0]?.data ?? new Uint8Array();
        return [(JSON.parse(Buffer.from(data).toString('utf8')) as { step: number }).step];
      });
      const end = next === null || next === undefined ? 'none' : 'workflowExecutionContinuedAsNewEventAttributes';
      runs.push({ runId, end, events: events?.length ?? 0, stepsScheduled });
      runId = next ?? undefined;
    }
    return runs;
  }
});
