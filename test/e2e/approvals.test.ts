import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { checkInvariants } from '../support/invariants.ts';
import { recorded } from '../support/recorder.ts';
import { bash, SessionDriver, STACK_TEST_MS } from '../support/session-driver.ts';
import { startStack, type TestStack } from '../support/stack.ts';

describe('an approval', { timeout: STACK_TEST_MS }, () => {
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

  const ask = (key: string, options: { limits?: object; seconds?: number } = {}): Promise<string> =>
    driver.open([{ tools: [bash(recorded(key, options.seconds))] }, { text: '{{lastToolResult}}' }], {
      policy: 'always_ask',
      ...(options.limits === undefined ? {} : { limits: options.limits }),
    });
  const finish = async (session: string): Promise<void> => {
    await driver.quiet([session]);
    expect(await driver.turnEnds(session)).toEqual(['end_turn']);
    await checkInvariants(driver.query, session, { recorder: driver.recorder, temporal: await driver.temporal() });
  };
  const nothingRan = async (session: string, key: string): Promise<void> => {
    expect(await driver.recorder.traces(session, key)).toEqual({ starts: 0, ends: 0 });
  };
  const ranOnce = async (session: string, key: string): Promise<void> => {
    expect(await driver.recorder.traces(session, key)).toEqual({ starts: 1, ends: 1 });
  };

  it('that does not exist is not found', async () => {
    const answer = await driver.decide('appr_00000000000000000000000000', 'allow');
    expect(answer.status).toBe(404);
  });

  it('runs the call once it is allowed, however many say so at once; another decision conflicts', async () => {
    const session = await ask('allowed');
    const { id } = await driver.pendingApproval(session);
    await nothingRan(session, 'allowed');
    const answers = await Promise.all(Array.from({ length: 8 }, () => driver.decide(id, 'allow')));
    expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 200));
    const other = await driver.decide(id, 'deny');
    expect([other.status, other.body.error?.code]).toEqual([409, 'already_decided']);
    await finish(session);
    expect((await driver.decide(id, 'allow')).status).toBe(200);
    expect((await driver.decide(id, 'deny')).status).toBe(409);
    await ranOnce(session, 'allowed');
    expect(await driver.approvals(session)).toMatchObject([{ state: 'consumed', decision: 'allow' }]);
  });

  it('that is denied never runs anything, and the model is told why', async () => {
    const session = await ask('denied');
    const { id } = await driver.pendingApproval(session);
    expect((await driver.decide(id, 'deny', { message: 'too dangerous' })).status).toBe(200);
    expect((await driver.decide(id, 'allow')).status).toBe(409);
    await finish(session);
    await nothingRan(session, 'denied');
    const [said] = await driver.query<{ text: string }>(
      `SELECT payload::text AS text FROM events WHERE session_id = $1 AND type = 'agent.message'`,
      [session],
    );
    expect(said?.text).toContain('too dangerous');
  });

  it('of two opposite decisions at once, one stands and the other conflicts', async () => {
    const session = await ask('race');
    const { id } = await driver.pendingApproval(session);
    const [allow, deny] = await Promise.all([driver.decide(id, 'allow'), driver.decide(id, 'deny')]);
    expect([
      [200, 409],
      [409, 200],
    ]).toContainEqual([allow.status, deny.status]);
    await finish(session);
    if (allow.status === 200) await ranOnce(session, 'race');
    else await nothingRan(session, 'race');
  });

  it('that nobody gives in time expires: deciding is gone, nothing runs, the turn goes on', async () => {
    const session = await ask('expired', { limits: { approval_ttl_ms: 1_000 } });
    await driver.untilSql(
      'it expired',
      session,
      `EXISTS (SELECT 1 FROM approvals p WHERE p.session_id = s.id AND p.state = 'expired')`,
    );
    const [approval] = await driver.approvals(session);
    const answer = await driver.decide(approval?.id ?? '', 'allow');
    expect([answer.status, answer.body.error?.code]).toEqual([410, 'approval_expired']);
    await finish(session);
    await nothingRan(session, 'expired');
  });

  it('runs the edited command and not the one that was asked for', async () => {
    const session = await ask('original');
    const { id } = await driver.pendingApproval(session);
    expect((await driver.decide(id, 'deny', { input: { command: 'true' } })).status).toBe(400);
    const input = { command: recorded('edited') };
    expect((await driver.decide(id, 'allow', { input })).status).toBe(200);
    expect((await driver.decide(id, 'allow', { input })).status).toBe(200);
    expect((await driver.decide(id, 'allow')).status).toBe(409);
    await finish(session);
    await nothingRan(session, 'original');
    await ranOnce(session, 'edited');
  });

  it('may come as a Temporal signal, and the record says that it did', async () => {
    const session = await ask('signal');
    const { id } = await driver.pendingApproval(session);
    const handle = (await driver.temporal()).workflow.getHandle(`session/${session}`);
    await handle.signal('approve', { approvalId: id, decision: 'allow' });
    await finish(session);
    await ranOnce(session, 'signal');
    expect(await driver.approvals(session)).toMatchObject([{ state: 'consumed', decidedBy: 'temporal-signal' }]);
    const audit = await driver.query<{ actor: string }>(
      `SELECT actor FROM audit WHERE resource = $1 AND action = 'approval.decide'`,
      [id],
    );
    expect(audit).toEqual([{ actor: 'temporal-signal' }]);
  });

  it('cannot be forged by a signal that contradicts what the API recorded', async () => {
    const session = await ask('forged');
    const { id } = await driver.pendingApproval(session);
    const handle = (await driver.temporal()).workflow.getHandle(`session/${session}`);
    await handle.signal('approve', { approvalId: 'appr_00000000000000000000000000', decision: 'allow' });
    expect((await driver.decide(id, 'deny')).status).toBe(200);
    await handle.signal('approve', { approvalId: id, decision: 'allow' });
    await finish(session);
    await nothingRan(session, 'forged');
  });

  it('is withdrawn by an interrupt: a late yes changes nothing', async () => {
    const session = await ask('withdrawn');
    const { id } = await driver.pendingApproval(session);
    await driver.send(session, { type: 'user.interrupt' });
    await driver.quiet([session]);
    expect(await driver.turnEnds(session)).toEqual(['interrupted']);
    expect((await driver.decide(id, 'allow')).status).toBe(409);
    await nothingRan(session, 'withdrawn');
    await checkInvariants(driver.query, session, { recorder: driver.recorder, temporal: await driver.temporal() });
  });
});
