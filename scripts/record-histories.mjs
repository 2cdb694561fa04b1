// Drives one session of each kind on a running stack and records their histories for the replay gate:
//   LONGHAUL_HOME=<home> node scripts/record-histories.mjs
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import Anthropic from '@anthropic-ai/sdk';
import { Client, Connection } from '@temporalio/client';

const home = process.env.LONGHAUL_HOME ?? '.longhaul';
const dev = JSON.parse(readFileSync(path.join(home, 'dev.json'), 'utf8'));
const { beta } = new Anthropic({ baseURL: dev.apiUrl, apiKey: dev.apiKey });
const environment = await beta.environments.create({ name: 'replay' });

const TOOLS = [{ type: 'agent_toolset_20260401' }];
const GATED = [{ type: 'agent_toolset_20260401', default_config: { permission_policy: { type: 'always_ask' } } }];
const CUSTOM = [{ type: 'custom', name: 'w', description: 'd', input_schema: { type: 'object' } }];

const message = (steps) => ({
  type: 'user.message',
  content: [{ type: 'text', text: `go\n\`\`\`script\n${JSON.stringify(steps)}\n\`\`\`` }],
});
const step = (name, input) => ({ tools: [{ name, input }] });
const send = (sessionId, event) => beta.sessions.events.send(sessionId, { events: [event] });

function record(name, workflowId) {
  execFileSync(process.execPath, [path.join(import.meta.dirname, 'record-history.mjs'), name, workflowId], {
    stdio: 'inherit',
  });
}

/** Runs one turn; `answer` is asked what to send for each event that waits, `onEvent` sees everything. */
async function session(name, tools, steps, { answer, onEvent, environmentId = environment.id } = {}) {
  const agent = await beta.agents.create({ name, model: 'scripted', tools });
  const { id } = await beta.sessions.create({ agent: agent.id, environment_id: environmentId });
  const stream = await beta.sessions.events.stream(id);
  await send(id, message(steps));
  for await (const event of stream) {
    if (onEvent !== undefined && (await onEvent(id, event)) === 'stop') break;
    if (event.type === 'session.status_terminated') break;
    if (event.type !== 'session.status_idle') continue;
    if (event.stop_reason.type !== 'requires_action') {
      if (onEvent === undefined) break;
      continue;
    }
    for (const eventId of event.stop_reason.event_ids) await send(id, answer(eventId));
  }
  record(name, `session/${id}`);
}

const prepared = await beta.environments.create({
  name: 'replay prepared',
  config: { type: 'cloud', setup_script: 'echo made' },
});
const READS = [
  { name: 'glob', input: { pattern: '*' } },
  { name: 'glob', input: { pattern: '*.md' } },
];
await session('prepared', TOOLS, [{ tools: READS }, step('bash', { command: 'true' }), { text: 'ok' }], {
  environmentId: prepared.id,
});

await session('tools', TOOLS, [
  {
    tools: [
      { name: 'write', input: { file_path: 'a', content: 'x' } },
      { name: 'read', input: { file_path: 'a' } },
      { name: 'glob', input: { pattern: '*' } },
      { name: 'bash', input: { command: 'echo hi' } },
    ],
  },
  { text: 'ok' },
]);

let asked = 0;
await session(
  'approvals',
  GATED,
  [
    {
      tools: [
        { name: 'bash', input: { command: 'echo 1' } },
        { name: 'bash', input: { command: 'echo 2' } },
      ],
    },
    { text: 'ok' },
  ],
  {
    answer: (id) => ({ type: 'user.tool_confirmation', tool_use_id: id, result: asked++ === 0 ? 'allow' : 'deny' }),
  },
);

await session('custom-tool', CUSTOM, [step('w', {}), { text: 'ok' }], {
  answer: (id) => ({
    type: 'user.custom_tool_result',
    custom_tool_use_id: id,
    content: [{ type: 'text', text: 'r' }],
  }),
});

await session('interrupt-and-archive', TOOLS, [step('bash', { command: 'sleep 60' }), { text: 'never' }], {
  onEvent: async (id, event) => {
    if (event.type === 'agent.tool_use') await send(id, { type: 'user.interrupt' });
    if (event.type === 'session.status_idle') await beta.sessions.archive(id);
  },
});

const many = Array.from({ length: 150 }, (_, index) =>
  index % 2 === 0 ? step('read', { file_path: 'missing' }) : step('bash', { command: 'true' }),
);
await session('long-turn', TOOLS, [...many, { text: 'end' }]);

const agent = await beta.agents.create({ name: 'run', model: 'scripted' });

/** Runs a deployment by hand; `onStart` gets its workflow once its session works. */
async function run(name, steps, onStart) {
  const deployment = await beta.deployments.create({
    name,
    agent: agent.id,
    environment_id: environment.id,
    initial_events: [message(steps)],
  });
  const { id, session_id: sessionId } = await beta.deployments.run(deployment.id);
  const workflowId = `deployment/${deployment.id}/${id}`;
  if (onStart !== undefined) {
    for (let status = 'idle'; status !== 'running';) ({ status } = await beta.sessions.retrieve(sessionId));
    await onStart(workflowId);
  }
  for (let status = 'running'; status === 'running';) ({ status } = await beta.deploymentRuns.retrieve(id));
  record(name, workflowId);
}

await run('manual-run', [{ text: 'x' }]);

const connection = await Connection.connect({ address: dev.temporalAddress });
const { workflow } = new Client({ connection, namespace: dev.temporalNamespace });
await run('cancelled-run', [{ text: 'slow', chunks: 100, chunkMs: 500 }], (id) => workflow.getHandle(id).cancel());
await connection.close();
