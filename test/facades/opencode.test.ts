import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { createOpencodeClient as createV1Client } from '@opencode-ai/sdk';
import { createOpencodeClient, type Event, type OpencodeClient, type ToolPart } from '@opencode-ai/sdk/v2';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { installed } from '../support/harnesses.ts';
import { bash, scriptMessage, STACK_TEST_MS, type ScriptStep } from '../support/session-driver.ts';
import { eventually, startStack, type TestStack } from '../support/stack.ts';

const opencode = await installed('opencode');
const without = opencode.binary === undefined ? `, SKIPPED: ${opencode.reason}` : '';

/** The client throws where there is no data; its types do not know that. */
type Sure<T> = T extends (...args: infer A) => Promise<infer R>
  ? 'data' extends keyof R
    ? (...args: A) => Promise<Omit<R, 'data'> & { data: NonNullable<R['data']>; response: Response }>
    : T
  : T;
type SureClient<C> = { [G in keyof C]: C[G] extends object ? { [M in keyof C[G]]: Sure<C[G][M]> } & Sure<C[G]> : C[G] };

let stack: TestStack;
let base: string;
let client: SureClient<OpencodeClient>;

beforeAll(async () => {
  stack = await startStack();
  base = `${stack.url}/opencode`;
  client = createOpencodeClient({
    baseUrl: base,
    headers: { authorization: `Bearer ${stack.key}` },
    throwOnError: true,
  }) as unknown as SureClient<OpencodeClient>;
  const empty = await client.session.create({}, { throwOnError: false });
  expect(empty.response.status).toBe(404);
  await own('/v1/agents', {
    name: 'Helper',
    model: 'scripted',
    tools: [
      {
        type: 'agent_toolset_20260401',
        default_config: { enabled: true, permission_policy: { type: 'always_ask' } },
      },
    ],
  });
  await own('/v1/environments', { name: 'Box' });
});

afterAll(async () => {
  await stack.stop();
});

async function own(route: string, body?: object): Promise<Record<string, unknown>> {
  const answer = await fetch(`${stack.url}${route}`, {
    headers: { authorization: `Bearer ${stack.key}`, 'content-type': 'application/json' },
    ...(body === undefined ? {} : { method: 'POST', body: JSON.stringify(body) }),
  });
  expect(answer.status).toBe(200);
  return (await answer.json()) as Record<string, unknown>;
}

const script = (steps: ScriptStep[]): { type: 'text'; text: string } => ({
  type: 'text',
  text: scriptMessage(steps).content,
});

async function newSession(title?: string): Promise<string> {
  return (await client.session.create(title === undefined ? {} : { title })).data.id;
}

/** Collects the events of one session for as long as `run` takes. */
async function watching<T>(sessionID: string, run: (seen: Event[]) => Promise<T>): Promise<T> {
  const stop = new AbortController();
  const seen: Event[] = [];
  const { stream } = await client.event.subscribe({}, { signal: stop.signal });
  let connected = false;
  const reading = (async () => {
    for await (const event of stream) {
      if (event.type === 'server.connected') connected = true;
      if ('sessionID' in event.properties && event.properties.sessionID === sessionID) seen.push(event);
    }
  })();
  try {
    await eventually('the stream is open', () => connected);
    return await run(seen);
  } finally {
    stop.abort();
    await reading.catch(() => undefined);
  }
}

const idle = (seen: Event[]): boolean => seen.some(({ type }) => type === 'session.idle');

async function toolOf(sessionID: string): Promise<ToolPart> {
  const messages = (await client.session.messages({ sessionID })).data;
  const part = messages.flatMap(({ parts }) => parts).find(({ type }) => type === 'tool');
  expect(part).toBeDefined();
  return part as ToolPart;
}

/** The ledger's word on a session. */
async function spent(sessionID: string): Promise<{ input: number; output: number; cost: number }> {
  const { total } = await own(`/v1/sessions/${sessionID}/usage`);
  const { input_tokens: input, output_tokens: output, cost_micros: micros } = total as Record<string, number>;
  return { input: input!, output: output!, cost: micros! / 1e6 };
}

describe('the SDK of OpenCode', { timeout: STACK_TEST_MS }, () => {
  it('makes, names, lists and ends sessions; without an agent the first of the team', async () => {
    const made = (await client.session.create({ title: 'First' })).data;
    expect(made).toMatchObject({ title: 'First', agent: 'Helper', directory: '/workspace' });
    const named = (await client.session.create({ agent: 'Helper' })).data;
    await client.session.update({ sessionID: named.id, title: 'Second' });
    expect((await client.session.get({ sessionID: named.id })).data.title).toBe('Second');
    const listed = (await client.session.list({})).data.map(({ id }) => id);
    expect(listed).toEqual(expect.arrayContaining([made.id, named.id]));
    const found = (await client.session.list({ search: 'sec' })).data.map(({ id }) => id);
    expect(found).toEqual([named.id]);
    await client.session.delete({ sessionID: named.id });
    const gone = await client.session.get({ sessionID: named.id }, { throwOnError: false });
    expect(gone.response.status).toBe(404);
    const unknown = await client.session.create({ agent: 'Nobody' }, { throwOnError: false });
    expect(unknown.response.status).toBe(404);
  });

  it('prompts and gets the answer of its turn, with the tokens and the cost of the ledger', async () => {
    const sessionID = await newSession();
    const steps = [{ text: 'The answer is here.', chunks: 3, usage: { input: 1_200, output: 34 } }];
    const { data: reply } = await client.session.prompt({ sessionID, parts: [script(steps as ScriptStep[])] });
    expect(reply.parts.map(({ type }) => type)).toEqual(['step-start', 'text', 'step-finish']);
    expect(reply.parts[1]).toMatchObject({ text: 'The answer is here.' });
    const ledger = await spent(sessionID);
    expect(ledger.cost).toBeGreaterThan(0);
    const counted = { cost: ledger.cost, tokens: { input: ledger.input, output: ledger.output } };
    expect(reply.info).toMatchObject({ finish: 'stop', modelID: 'scripted', ...counted });
    expect((await client.session.get({ sessionID })).data).toMatchObject(counted);
    const { data: messages } = await client.session.messages({ sessionID });
    expect(messages.map(({ info }) => info.role)).toEqual(['user', 'assistant']);
    expect(messages[1]).toEqual(reply);
    expect(reply.info.parentID).toBe(messages[0]!.info.id);
    expect((await client.session.todo({ sessionID })).data).toEqual([]);
    expect((await client.session.diff({ sessionID })).data).toEqual([]);
  });

  it('sees a text while it streams, in the part that the log keeps', async () => {
    const sessionID = await newSession();
    await watching(sessionID, async (seen) => {
      const text = 'One two three four five six seven eight.';
      await client.session.promptAsync({ sessionID, parts: [script([{ text, chunks: 8, chunkMs: 700 }])] });
      await eventually('the turn is over', () => idle(seen));
      const deltas = seen.flatMap((event) => (event.type === 'message.part.delta' ? [event.properties] : []));
      // Previews may be lost on a machine that is busy, but none is made up.
      expect(deltas.length).toBeGreaterThan(0);
      for (const { delta } of deltas) expect(text).toContain(delta);
      const messages = (await client.session.messages({ sessionID })).data;
      const kept = messages[1]!.parts.find(({ type }) => type === 'text');
      expect(new Set(deltas.map(({ partID }) => partID))).toEqual(new Set([kept!.id]));
      expect(kept).toMatchObject({ text });
      const ids = messages.flatMap(({ info, parts }) => [info.id, ...parts.map(({ id }) => id)]);
      const ordered = messages.flatMap(({ parts }) => parts.map(({ id }) => id));
      expect(ordered).toEqual(ordered.toSorted());
      expect(new Set(ids).size).toBe(ids.length);
      const statuses = seen.flatMap((event) => (event.type === 'session.status' ? [event.properties.status.type] : []));
      expect(statuses).toEqual(['busy', 'idle']);
    });
  });

  it.each([
    ['once', 'completed'],
    ['always', 'completed'],
    ['reject', 'error'],
  ] as const)('answers a permission with %s: the durable approval is decided', async (reply, status) => {
    const sessionID = await newSession();
    await watching(sessionID, async (seen) => {
      const steps = [{ tools: [bash('echo made-it')] }, { text: 'Said: {{lastToolResult}}' }];
      const answer = client.session.prompt({ sessionID, parts: [script(steps)] });
      await eventually('a permission is asked', () => seen.some(({ type }) => type === 'permission.asked'));
      const { data: asked } = await client.permission.list({});
      const request = asked.find((one) => one.sessionID === sessionID)!;
      expect(request).toMatchObject({ permission: 'bash', patterns: ['echo made-it'] });
      const waiting = await toolOf(sessionID);
      expect(waiting).toMatchObject({ id: expect.any(String), tool: 'bash', state: { status: 'running' } });
      expect(request.tool).toEqual({ messageID: waiting.messageID, callID: waiting.callID });
      expect((await client.session.status({})).data[sessionID]).toEqual({ type: 'busy' });
      await client.permission.reply({ requestID: request.id, reply, message: 'because I say so' });
      const { data: replied } = await answer;
      expect(replied.info).toMatchObject({ finish: 'stop' });
      const ended = await toolOf(sessionID);
      expect(ended).toMatchObject({ id: waiting.id, state: { status } });
      expect(JSON.stringify(ended.state)).toContain(status === 'error' ? 'because I say so' : 'made-it');
      await eventually('the reply is told', () => seen.some(({ type }) => type === 'permission.replied'));
      const states = seen.flatMap((event) =>
        event.type === 'message.part.updated' && event.properties.part.type === 'tool'
          ? [event.properties.part.state.status]
          : [],
      );
      expect(states.slice(0, 2)).toEqual(['pending', 'running']);
      expect(states.at(-1)).toBe(status);
      const { state, decided_by: who } = await own(`/v1/approvals/${request.id}`);
      expect([state, typeof who]).toEqual([reply === 'reject' ? 'denied' : 'consumed', 'string']);
      const other = await client.permission.reply(
        { requestID: request.id, reply: reply === 'reject' ? 'once' : 'reject' },
        { throwOnError: false },
      );
      expect(other.response.status).toBe(409);
    });
  });

  it('aborts a turn', async () => {
    const sessionID = await newSession();
    const answer = client.session.prompt({ sessionID, parts: [script([{ text: 'never', delayMs: 600_000 }])] });
    await eventually('it works', async () => (await client.session.status({})).data[sessionID]?.type === 'busy');
    await client.session.abort({ sessionID });
    expect((await answer).data.info.error?.name).toBe('MessageAbortedError');
    expect((await client.session.status({})).data[sessionID]).toBeUndefined();
  });

  it('says the same message once, however often it is sent under one id', async () => {
    const sessionID = await newSession();
    const sent = { sessionID, messageID: 'msg_mine', parts: [script([{ text: 'once' }])] };
    await Promise.all([client.session.prompt(sent), eventually('accepted', async () => (await count()) > 0)]);
    await client.session.prompt(sent);
    async function count(): Promise<number> {
      return (await client.session.messages({ sessionID })).data.length;
    }
    expect(await count()).toBe(2);
  });

  it('works with the generation of before, and with the key as a password', async () => {
    const password = Buffer.from(`opencode:${stack.key}`).toString('base64');
    const older = createV1Client({
      baseUrl: base,
      headers: { authorization: `Basic ${password}` },
      throwOnError: true,
    }) as unknown as SureClient<ReturnType<typeof createV1Client>>;
    const session = (await older.session.create({ body: { title: 'Older' } })).data;
    const answer = older.session.prompt({
      path: { id: session.id },
      body: { parts: [script([{ tools: [bash('echo made-it')] }, { text: 'Said: {{lastToolResult}}' }])] },
    });
    let permission: string | undefined;
    await eventually('a permission is asked', async () => {
      permission = (await client.permission.list({})).data.find((one) => one.sessionID === session.id)?.id;
      return permission !== undefined;
    });
    await older.postSessionIdPermissionsPermissionId({
      path: { id: session.id, permissionID: permission! },
      body: { response: 'once' },
    });
    expect((await answer).data.parts.map(({ type }) => type)).toContain('tool');
    expect((await older.app.agents()).data.map(({ name }) => name)).toEqual(['Helper']);
    const providers = (await older.config.providers()).data;
    expect(Object.keys(providers.providers[0]!.models)).toEqual(['scripted']);
  });

  it('comes back by itself when the api was killed, and sees the rest', async () => {
    const sessionID = await newSession();
    await watching(sessionID, async (seen) => {
      const steps = [{ text: 'Before.' }, { text: 'never' }];
      await client.session.prompt({ sessionID, parts: [script(steps)] });
      await eventually('the first turn is over', () => idle(seen));
      const told = seen.length;
      await client.session.promptAsync({
        sessionID,
        parts: [script([{ text: 'A part.', tools: [bash('echo made-it')] }, { text: 'After the kill.' }])],
      });
      await eventually('a permission is asked', () => seen.slice(told).some(({ type }) => type === 'permission.asked'));
      const before = seen.length;
      await stack.killAndRecover('api');
      const request = (await client.permission.list({})).data.find((one) => one.sessionID === sessionID)!;
      await client.permission.reply({ requestID: request.id, reply: 'once' });
      await eventually('the end is seen', () => idle(seen.slice(before)));
      // The end of the turn before was told, and must not be taken for this one.
      expect(seen.slice(before).filter(({ type }) => type === 'session.idle')).toHaveLength(1);
      const texts = seen.slice(before).flatMap((event) => {
        if (event.type !== 'message.part.updated' || event.properties.part.type !== 'text') return [];
        return [event.properties.part.text];
      });
      expect(texts).toContain('After the kill.');
    });
  });
});

describe(`opencode run --attach${without}`, { timeout: STACK_TEST_MS }, () => {
  it.skipIf(opencode.binary === undefined)('prints what the agent says and approves its command', async () => {
    const home = mkdtempSync(path.join(os.tmpdir(), 'opencode-client-'));
    try {
      const steps = [
        { text: 'I look first.', tools: [bash('echo made-it > kept.txt; cat kept.txt')] },
        { text: 'Done.' },
      ];
      const child = spawn(opencode.binary!.path, [...opencode.binary!.args, 'run', '--attach', base, '--auto'], {
        env: {
          PATH: process.env['PATH'],
          HOME: home,
          OPENCODE_SERVER_PASSWORD: stack.key,
          OPENCODE_DISABLE_AUTOUPDATE: '1',
          OPENCODE_DISABLE_MODELS_FETCH: '1',
        },
        stdio: ['pipe', 'pipe', 'pipe'],
      });
      let said = '';
      child.stdout.on('data', (chunk: Buffer) => (said += chunk.toString('utf8')));
      let complained = '';
      child.stderr.on('data', (chunk: Buffer) => (complained += chunk.toString('utf8')));
      child.stdin.end(script(steps).text);
      const code = await new Promise((resolve) => child.once('close', resolve));
      expect([code, said], complained).toEqual([0, expect.stringContaining('I look first.')]);
      const [newest] = (await client.session.list({ limit: 1 })).data;
      const tool = await toolOf(newest!.id);
      expect(tool.state).toMatchObject({ status: 'completed', output: 'made-it\n' });
      const messages = (await client.session.messages({ sessionID: newest!.id })).data;
      expect(messages[1]!.parts.flatMap((part) => (part.type === 'text' ? [part.text] : []))).toEqual([
        'I look first.',
        'Done.',
      ]);
    } finally {
      rmSync(home, { recursive: true, force: true });
    }
  });
});
