import Anthropic, { ConflictError, NotFoundError } from '@anthropic-ai/sdk';
import type {
  BetaManagedAgentsSessionEvent,
  BetaManagedAgentsStreamSessionEvents,
} from '@anthropic-ai/sdk/resources/beta/sessions/events';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { TestStack } from '../support/stack.ts';
import { startStack } from '../support/stack.ts';

/** The official SDK, told nothing but where we are and who we are, against a whole stack of real processes. */
let stack: TestStack;
let client: Anthropic;
let environmentId: string;
beforeAll(async () => {
  stack = await startStack();
  client = new Anthropic({ baseURL: stack.url, apiKey: stack.key, maxRetries: 0 });
  environmentId = (await client.beta.environments.create({ name: 'sdk', config: { type: 'cloud' } })).id;
}, 180_000);
afterAll(() => stack?.stop());

type Event = BetaManagedAgentsStreamSessionEvents;

/** A message that holds the script of the offline model. */
function script(steps: object[], says = 'Do it'): { type: 'user.message'; content: { type: 'text'; text: string }[] } {
  return {
    type: 'user.message',
    content: [{ type: 'text', text: `${says}\n\`\`\`script\n${JSON.stringify(steps)}\n\`\`\`` }],
  };
}

async function agentWith(tools: Anthropic.Beta.AgentCreateParams['tools']) {
  return client.beta.agents.create({ name: 'SDK agent', model: 'scripted', system: 'Be brief.', tools: tools ?? [] });
}

/** Reads a stream up to the first event that `until` accepts; the events on the way are returned. */
async function readUntil(stream: AsyncIterator<Event>, until: (event: Event) => boolean): Promise<Event[]> {
  const seen: Event[] = [];
  const deadline = AbortSignal.timeout(25_000);
  const late = new Promise<never>((_resolve, reject) => {
    deadline.addEventListener('abort', () => reject(new Error(`nothing more after ${JSON.stringify(seen)}`)));
  });
  for (;;) {
    const next = await Promise.race([stream.next(), late]);
    if (next.done === true) throw new Error(`the stream ended after ${JSON.stringify(seen)}`);
    seen.push(next.value);
    if (until(next.value)) return seen;
  }
}
const isIdle = (reason: string) => (event: Event) =>
  event.type === 'session.status_idle' && event.stop_reason.type === reason;
const textOf = (events: Event[]) =>
  events.flatMap((event) =>
    event.type === 'agent.message' ? event.content.map((block) => (block.type === 'text' ? block.text : '')) : [],
  );

it('streams a turn while sending it', async () => {
  const agent = await agentWith([]);
  const session = await client.beta.sessions.create({
    agent: agent.id,
    environment_id: environmentId,
    title: 'Stream',
  });
  expect(session).toMatchObject({ type: 'session', status: 'idle', environment_id: environmentId });
  const stream = await client.beta.sessions.events.stream(session.id, { event_deltas: ['agent.message'] });
  const events = stream[Symbol.asyncIterator]();
  const sent = await client.beta.sessions.events.send(session.id, {
    events: [script([{ text: 'Hello from the script' }])],
  });
  expect(sent.data).toHaveLength(1);
  const seen = await readUntil(events, isIdle('end_turn'));
  stream.controller.abort();
  expect(textOf(seen).join('')).toContain('Hello from the script');
  expect(seen.map((event) => event.type)).toContain('session.status_running');
  expect((await client.beta.sessions.retrieve(session.id)).usage.output_tokens).toBeGreaterThan(0);
});

it('answers a custom tool and confirms a gated one', async () => {
  const agent = await agentWith([
    {
      type: 'agent_toolset_20260401',
      configs: [{ name: 'bash', permission_policy: { type: 'always_ask' } }],
    },
    {
      type: 'custom',
      name: 'get_weather',
      description: 'Weather',
      input_schema: { type: 'object', properties: { city: { type: 'string' } } },
    },
  ]);
  const session = await client.beta.sessions.create({
    agent: { type: 'agent', id: agent.id },
    environment_id: environmentId,
  });
  const stream = await client.beta.sessions.events.stream(session.id);
  const events = stream[Symbol.asyncIterator]();
  await client.beta.sessions.events.send(session.id, {
    events: [
      script([
        { tools: [{ name: 'get_weather', input: { city: 'Berlin' } }] },
        { text: 'I hear {{lastToolResult}}', tools: [{ name: 'bash', input: { command: 'echo gated-$((40+2))' } }] },
        { text: 'It printed {{lastToolResult}}' },
      ]),
    ],
  });
  const asked = await readUntil(events, isIdle('requires_action'));
  const custom = asked.find((event) => event.type === 'agent.custom_tool_use');
  expect(custom).toMatchObject({ name: 'get_weather', input: { city: 'Berlin' } });
  expect(asked.at(-1)).toMatchObject({ stop_reason: { event_ids: [custom?.id] } });
  await client.beta.sessions.events.send(session.id, {
    events: [
      {
        type: 'user.custom_tool_result',
        custom_tool_use_id: custom?.id ?? '',
        content: [{ type: 'text', text: 'sunny' }],
      },
    ],
  });
  const gatedAt = await readUntil(events, isIdle('requires_action'));
  expect(textOf(gatedAt).join('')).toContain('I hear sunny');
  const gated = gatedAt.find((event) => event.type === 'agent.tool_use');
  expect(gated).toMatchObject({ name: 'bash', evaluated_permission: 'ask' });
  await client.beta.sessions.events.send(session.id, {
    events: [{ type: 'user.tool_confirmation', tool_use_id: gated?.id ?? '', result: 'allow' }],
  });
  const done = await readUntil(events, isIdle('end_turn'));
  stream.controller.abort();
  expect(textOf(done).join('')).toContain('gated-42');
  await expect(
    client.beta.sessions.events.send(session.id, {
      events: [{ type: 'user.tool_confirmation', tool_use_id: gated?.id ?? '', result: 'deny' }],
    }),
  ).rejects.toThrow(ConflictError);
});

it('interrupts a running turn and goes on with the next message', async () => {
  const agent = await agentWith([]);
  const session = await client.beta.sessions.create({ agent: agent.id, environment_id: environmentId });
  const stream = await client.beta.sessions.events.stream(session.id);
  const events = stream[Symbol.asyncIterator]();
  await client.beta.sessions.events.send(session.id, {
    events: [script([{ text: 'never heard in full '.repeat(50), chunks: 100, chunkMs: 1_000 }])],
  });
  await readUntil(events, (event) => event.type === 'session.status_running');
  await client.beta.sessions.events.send(session.id, { events: [{ type: 'user.interrupt' }] });
  await readUntil(events, (event) => event.type === 'session.status_idle');
  await client.beta.sessions.events.send(session.id, { events: [script([{ text: 'after the interrupt' }])] });
  const seen = await readUntil(events, isIdle('end_turn'));
  stream.controller.abort();
  expect(textOf(seen).join('')).toContain('after the interrupt');
});

it('lists and pages everything the session logged', async () => {
  const agent = await agentWith([]);
  const made: string[] = [];
  for (let i = 0; i < 3; i += 1) {
    const session = await client.beta.sessions.create({
      agent: agent.id,
      environment_id: environmentId,
      title: `Page ${i}`,
      initial_events: [script([{ text: `answer ${i}` }])],
    });
    made.unshift(session.id);
  }
  const listed: string[] = [];
  for await (const session of client.beta.sessions.list({ agent_id: agent.id, limit: 1 })) listed.push(session.id);
  expect(listed).toEqual(made);

  const id = made[0] ?? '';
  await expect.poll(async () => (await client.beta.sessions.retrieve(id)).status, { timeout: 60_000 }).toBe('idle');
  await expect
    .poll(async () => (await collect(id)).some((event) => event.type === 'session.status_idle'), { timeout: 60_000 })
    .toBe(true);
  const one = await collect(id, 1);
  const all = await collect(id, 1_000);
  expect(one).toEqual(all);
  expect(new Set(all.map((event) => event.id)).size).toBe(all.length);
  const messages = await client.beta.sessions.events.list(id, { types: ['agent.message'], order: 'desc' });
  expect(messages.data.map((event) => event.type)).toEqual(['agent.message']);
});

async function collect(sessionId: string, limit = 2): Promise<BetaManagedAgentsSessionEvent[]> {
  const events: BetaManagedAgentsSessionEvent[] = [];
  for await (const event of client.beta.sessions.events.list(sessionId, { limit })) events.push(event);
  return events;
}

it('makes a new version of the agent; a session keeps its own', async () => {
  const agent = await agentWith([]);
  const session = await client.beta.sessions.create({ agent: agent.id, environment_id: environmentId });
  const edited = await client.beta.agents.update(agent.id, { version: agent.version, system: 'Be long.' });
  expect(edited.version).toBe(agent.version + 1);
  await expect(client.beta.agents.update(agent.id, { version: agent.version, name: 'stale' })).rejects.toThrow(
    ConflictError,
  );
  const kept = await client.beta.sessions.retrieve(session.id);
  expect(kept.agent).toMatchObject({ version: agent.version, system: 'Be brief.' });
  const versions: number[] = [];
  for await (const version of client.beta.agents.versions.list(agent.id, { limit: 1 })) versions.push(version.version);
  expect(versions).toEqual([2, 1]);
  const newer = await client.beta.sessions.create({ agent: agent.id, environment_id: environmentId });
  expect(newer.agent.version).toBe(2);
  await expect(client.beta.agents.retrieve('agent_none')).rejects.toThrow(NotFoundError);
});

it('puts the agent on a schedule, runs it now and reads the run', async () => {
  const agent = await agentWith([]);
  const deployment = await client.beta.deployments.create({
    name: 'Nightly',
    agent: agent.id,
    environment_id: environmentId,
    initial_events: [script([{ text: 'the nightly work' }])],
    schedule: { type: 'cron', expression: '0 3 * * *', timezone: 'Europe/Berlin' },
  });
  expect(deployment.schedule?.upcoming_runs_at).toHaveLength(5);
  const run = await client.beta.deployments.run(deployment.id);
  expect(run).toMatchObject({
    type: 'deployment_run',
    deployment_id: deployment.id,
    trigger_context: { type: 'manual' },
  });
  const read = await client.beta.deploymentRuns.retrieve(run.id);
  expect(read).toMatchObject({ id: run.id, session_id: run.session_id, error: null });
  await expect
    .poll(async () => JSON.stringify(await collect(run.session_id ?? '')), { timeout: 60_000 })
    .toContain('the nightly work');
  const runs: string[] = [];
  for await (const item of client.beta.deploymentRuns.list({ deployment_id: deployment.id })) runs.push(item.id);
  expect(runs).toEqual([run.id]);
  expect((await client.beta.deployments.pause(deployment.id)).status).toBe('paused');
  expect((await client.beta.deployments.unpause(deployment.id)).status).toBe('active');
  expect((await client.beta.deployments.archive(deployment.id)).archived_at).not.toBeNull();
});

it('archives and deletes sessions', async () => {
  const agent = await agentWith([]);
  const first = await client.beta.sessions.create({ agent: agent.id, environment_id: environmentId });
  expect((await client.beta.sessions.archive(first.id)).archived_at).not.toBeNull();
  await expect
    .poll(async () => (await client.beta.sessions.retrieve(first.id)).status, { timeout: 60_000 })
    .toBe('terminated');
  await expect(client.beta.sessions.events.send(first.id, { events: [{ type: 'user.interrupt' }] })).rejects.toThrow(
    ConflictError,
  );
  const second = await client.beta.sessions.create({ agent: agent.id, environment_id: environmentId });
  expect(await client.beta.sessions.delete(second.id)).toEqual({ id: second.id, type: 'session_deleted' });
  await expect(client.beta.sessions.retrieve(second.id)).rejects.toThrow(NotFoundError);
});
