import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { checkInvariants } from '../support/invariants.ts';
import { recorded } from '../support/recorder.ts';
import {
  type Answer,
  bash,
  type Frame,
  scriptMessage,
  SessionDriver,
  STACK_TEST_MS,
} from '../support/session-driver.ts';
import { startStack, type TestStack } from '../support/stack.ts';

const saying = (text: string): object => ({ events: [scriptMessage([{ text }])] });

describe('the api is killed', { timeout: STACK_TEST_MS }, () => {
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

  const check = async (sessionIds: string[], gatewayKills = 0): Promise<void> => {
    const { query, recorder } = driver;
    const temporal = await driver.temporal();
    for (const sessionId of sessionIds) await checkInvariants(query, sessionId, { recorder, temporal, gatewayKills });
  };

  it('while sessions are opened: each request makes one session, and each session runs', async () => {
    const names = Array.from({ length: 16 }, (_, index) => `open${index}`);
    const requests = await Promise.all(
      names.map(async (name) => {
        const body = await driver.sessionBody([{ tools: [bash(recorded(name))] }, { text: 'opened' }]);
        return { name, body: { ...body, title: name } };
      }),
    );
    const killAtFirstAnswer = (answer: Answer | undefined): void => {
      if (answer === undefined || killed) return;
      killed = true;
      driver.kill('api');
    };
    let killed = false;
    const first = await Promise.all(
      requests.map(async ({ name, body }) => {
        const answer = await driver.once('POST', '/v1/sessions', body, name);
        killAtFirstAnswer(answer);
        return answer;
      }),
    );
    expect(first.filter((answer) => answer?.status === 200).length).toBeGreaterThan(0);
    expect(first).toContain(undefined);
    const second = await Promise.all(requests.map(({ name, body }) => driver.call('POST', '/v1/sessions', body, name)));
    for (const [index, answer] of second.entries()) {
      expect(answer.status).toBe(200);
      const before = first[index];
      if (before !== undefined) expect(answer.body.id).toBe(before.body.id);
    }
    const rows = await driver.query<{ title: string; n: number }>(
      `SELECT title, count(*)::int AS n FROM sessions WHERE title = ANY($1) GROUP BY title ORDER BY title`,
      [names],
    );
    expect(rows).toEqual(names.toSorted().map((title) => ({ title, n: 1 })));
    const ids = second.map((answer) => answer.body.id ?? '');
    await driver.quiet(ids);
    for (const [index, id] of ids.entries()) {
      expect(await driver.turnEnds(id)).toEqual(['end_turn']);
      expect(await driver.recorder.traces(id, names[index] ?? '')).toEqual({ starts: 1, ends: 1 });
    }
    await check(ids, 1);
  });

  it('while messages arrive: each is taken once, in the order of its row', async () => {
    const session = await driver.open([{ text: 'ready' }]);
    await driver.quiet([session]);
    const keys = Array.from({ length: 10 }, (_, index) => `message${index}`);
    const path = `/v1/sessions/${session}/events`;
    const racing = Promise.all(keys.map((key) => driver.once('POST', path, saying(key), key)));
    await driver.untilSql('a message is in', session, `(SELECT count(*) FROM inputs i WHERE i.session_id = s.id) > 1`);
    driver.kill('api');
    await racing;
    const answers = await Promise.all(keys.map((key) => driver.call('POST', path, saying(key), key)));
    expect(answers.map(({ status }) => status)).toEqual(keys.map(() => 200));
    await driver.quiet([session]);
    expect(await driver.turnEnds(session)).toEqual(Array.from({ length: 11 }, () => 'end_turn'));
    const order = await driver.query<{ turn: number }>(
      `SELECT i.turn FROM inputs i JOIN events e ON e.id = i.event_id WHERE i.session_id = $1 ORDER BY e.seq`,
      [session],
    );
    expect(order.map(({ turn }) => turn)).toEqual(Array.from({ length: 11 }, (_, index) => index + 1));
    await check([session], 1);
  });

  it('while a viewer watches: it comes back with Last-Event-ID and misses nothing, sees nothing twice', async () => {
    const steps = Array.from({ length: 6 }, (_, index) => ({ tools: [bash(recorded(`seen${index}`, 0.4))] }));
    const session = await driver.open([...steps, { text: 'all seen', chunks: 20, chunkMs: 50 }]);
    const frames: Frame[] = [];
    let connections = 0;
    let killed = false;
    const isOver = (): boolean => frames.at(-1)?.type === 'session.status_idle';
    while (!isOver()) {
      connections += 1;
      await driver.watch(session, frames, () => {
        if (!killed && frames.filter(({ type }) => type === 'agent.tool_result').length >= 2) {
          killed = true;
          driver.kill('api');
        }
        return isOver();
      });
      await stack.waitReady();
    }
    expect(connections).toBeGreaterThan(1);
    await driver.quiet([session]);
    const rows = await driver.query<{ seq: string; type: string }>(
      'SELECT seq, type FROM events WHERE session_id = $1 ORDER BY seq',
      [session],
    );
    expect(frames).toEqual(rows.map(({ seq, type }) => ({ id: Number(seq), type })));
    await check([session], 1);
  });

  it('while the model answers: the gateway that comes next makes the call again and the turn goes on', async () => {
    const session = await driver.open([{ text: 'cut', chunks: 20, chunkMs: 100 }]);
    await driver.untilSql('the call runs', session, `EXISTS (SELECT 1 FROM model_calls c WHERE c.session_id = s.id)`);
    await stack.killAndRecover('api');
    await driver.quiet([session]);
    expect(await driver.turnEnds(session)).toEqual(['end_turn']);
    await check([session], 1);
  });
});
