import { afterAll, beforeAll, expect, it } from 'vitest';
import { sessionWorkflowId } from '../../workflows/ids.ts';
import { makeAgent, testApi, type TestApi } from '../api/support.ts';
import { BED_PATIENCE_MS, BedDriver, toolset } from '../support/bed-driver.ts';
import { bash, scriptMessage } from '../support/session-driver.ts';
import { workerBed, type WorkerBed } from '../support/worker.ts';

const TURN_MS = 8_000;
/** A clock that is looked at whenever the turn's time might be over is looked at as often while a person is waited for. */
const LOOKS = 7;
/** The turn's clock before, during and after the wait, the wait itself, and the idle session's own timer. */
const TIMERS = 5;

let api: TestApi;
let bed: WorkerBed;
beforeAll(async () => {
  api = await testApi();
  bed = await workerBed(api);
  await bed.start();
});
afterAll(async () => {
  await bed.close();
  await api.close();
});

it(
  'a turn with little time left that waits for a person for long adds nothing to its history',
  async () => {
    const driver = new BedDriver(api);
    const { agentId, environmentId } = await makeAgent(api, { tools: [toolset('always_ask')] });
    const made = await api
      .post('/v1/sessions', {
        agent: agentId,
        environment_id: environmentId,
        limits: { turn_timeout_ms: TURN_MS, approval_ttl_ms: TURN_MS * LOOKS },
        initial_events: [scriptMessage([{ tools: [bash('true')] }, { text: 'over' }])],
      })
      .expect(200);
    const session = made.body.id as string;
    await driver.until(
      'nobody answered',
      session,
      `EXISTS (SELECT 1 FROM approvals a WHERE a.session_id = s.id AND a.state = 'expired')`,
    );
    const { events } = await api.services.temporal.client.workflow.getHandle(sessionWorkflowId(session)).fetchHistory();
    const timers = (events ?? []).filter(
      (event) => event.timerStartedEventAttributes !== null && event.timerStartedEventAttributes !== undefined,
    );
    expect(timers.length).toBeLessThanOrEqual(TIMERS);
  },
  BED_PATIENCE_MS * 2,
);
