import { writeFileSync } from 'node:fs';
import os from 'node:os';
import { parseArgs } from 'node:util';
import { OwnStack } from '../cli/demo/own-stack.ts';
import { messageOf, print, say } from '../cli/output.ts';
import { createClient } from '../client/index.ts';
import { exec } from './exec.ts';
import { firstToken } from './first-token.ts';
import { idleMemory, sessionMemory } from './memory.ts';
import { showRow, type BenchContext, type Measurement, type Row } from './measurement.ts';
import { parallelTurns } from './parallel-turns.ts';
import { recovery } from './recovery.ts';
import { sessionCreate } from './session-create.ts';

/** In this order: idle memory before anything ran, the killing last. */
const MEASUREMENTS: readonly Measurement[] = [
  idleMemory,
  sessionCreate,
  firstToken,
  parallelTurns,
  exec,
  sessionMemory,
  recovery,
];

const HELP = `npm run bench -- [--only NAME]... [--quick] [--json FILE]
  names: ${MEASUREMENTS.map(({ name }) => name).join(', ')}`;

interface Failure {
  name: string;
  error: string;
}

async function contextOf(stack: OwnStack, quick: boolean): Promise<BenchContext> {
  const devJson = await stack.start();
  const client = createClient({ apiUrl: devJson.apiUrl, apiKey: devJson.apiKey });
  const agent = await client.agents.create({
    name: 'Bench',
    model: 'scripted',
    tools: [{ type: 'agent_toolset_20260401' }],
  });
  const environment = await client.environments.create({ name: 'bench' });
  return { stack, devJson, client, agentId: agent.id, environmentId: environment.id, quick, say };
}

async function measure(context: BenchContext, chosen: readonly Measurement[]): Promise<[Row[], Failure[]]> {
  const rows: Row[] = [];
  const failures: Failure[] = [];
  for (const { name, run } of chosen) {
    const startedMs = Date.now();
    try {
      rows.push(...(await run(context)));
      say(`${name}: done in ${((Date.now() - startedMs) / 1_000).toFixed(1)} s`);
    } catch (error) {
      failures.push({ name, error: messageOf(error) });
      say(`${name}: FAILED: ${messageOf(error)}`);
    }
  }
  return [rows, failures];
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      only: { type: 'string', multiple: true, default: [] },
      quick: { type: 'boolean', default: false },
      json: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    print(HELP);
    return 0;
  }
  const unknown = values.only.filter((name) => !MEASUREMENTS.some((measurement) => measurement.name === name));
  if (unknown.length > 0) {
    say(`unknown: ${unknown.join(', ')}\n${HELP}`);
    return 2;
  }
  const chosen = MEASUREMENTS.filter(({ name }) => values.only.length === 0 || values.only.includes(name));
  const loadAtStart = os.loadavg()[0] ?? 0;
  if (loadAtStart > os.cpus().length / 2)
    say(`The machine is busy (load ${loadAtStart.toFixed(1)}): times will be too long.`);
  const stack = new OwnStack('bench', { LONGHAUL_LOG_LEVEL: 'info' });
  const interrupted = new Promise<never>((_resolve, reject) => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
      process.once(signal, () => reject(new Error(`interrupted by ${signal}`)));
    }
  });
  let result: [Row[], Failure[]];
  try {
    say('Starting a stack of its own.');
    const work = contextOf(stack, values.quick).then((context) => measure(context, chosen));
    result = await Promise.race([work, interrupted]);
  } finally {
    await stack.stop();
    stack.remove(false);
  }
  const [rows, failures] = result;
  const cpu = os.cpus()[0]?.model ?? 'unknown';
  const machine = { cpu, cores: os.cpus().length, node: process.version, loadAtStart, quick: values.quick };
  print(
    `${machine.cores} × ${cpu}, Node ${machine.node}, load at start ${loadAtStart.toFixed(1)}${values.quick ? ', quick: too few samples to compare' : ''}\n`,
  );
  for (const row of rows) print(showRow(row));
  for (const { name, error } of failures) print(`${name}: FAILED: ${error}`);
  if (values.json !== undefined) {
    const takenAt = new Date().toISOString();
    writeFileSync(values.json, `${JSON.stringify({ taken_at: takenAt, machine, rows, failures }, null, 2)}\n`);
  }
  return failures.length === 0 ? 0 : 1;
}

try {
  // What still waits for an answer must not hold the end.
  process.exit(await main());
} catch (error) {
  say(`bench: ${messageOf(error)}`);
  process.exit(1);
}
