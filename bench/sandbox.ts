import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { createSandboxProviders } from '../activities/sandbox/index.ts';
import type { SandboxProvider, SandboxRef, SandboxSpec } from '../activities/sandbox/port.ts';
import { messageOf, print, say } from '../cli/output.ts';
import { LIMITS } from '../contracts/limits.ts';
import { createLogger } from '../telemetry/logger.ts';
import { type Row, showRow } from './measurement.ts';
import { median, quantile } from './stats.ts';

const HELP = 'npm run bench:sandbox -- [--quick] [--json FILE]';
const OWNER = 'bench';
const POLL_MS = 5_000;
/** Longer than a supervisor waits for a next command. */
const IDLE_MS = 40_000;
const TARGETS_MS = { create: 30, exec: 12, destroy: 50 } as const;

const spec: SandboxSpec = {
  owner: OWNER,
  labels: {},
  env: {},
  memoryBytes: LIMITS.sandboxMemoryBytes,
  diskBytes: LIMITS.sandboxDiskBytes,
  pids: LIMITS.sandboxPids,
  cpus: LIMITS.sandboxCpus,
  ttlMs: LIMITS.sandboxLeaseMs,
};

const signal = (): AbortSignal => AbortSignal.timeout(300_000);

async function timed(work: () => Promise<unknown>): Promise<number> {
  const startedMs = performance.now();
  await work();
  return performance.now() - startedMs;
}

async function plainSpawn(): Promise<void> {
  await once(spawn('true', [], { stdio: 'ignore' }), 'close');
}

async function execTrue(provider: SandboxProvider, ref: SandboxRef, execId: string): Promise<void> {
  await provider.execStart(ref, { execId, argv: ['true'], timeoutMs: 60_000 }, signal());
  let status: string;
  do {
    status = (await provider.execPoll(ref, execId, { out: 0, err: 0 }, POLL_MS, signal())).status.state;
  } while (status === 'running');
  if (status !== 'exited') throw new Error(`the command ended as ${status}`);
}

function row(name: string, timesMs: number[], plainMs: number[], targetMs?: number): Row {
  const ratio = median(timesMs) / median(plainMs);
  const spread = `p10 ${quantile(timesMs, 0.1).toFixed(1)}, p90 ${quantile(timesMs, 0.9).toFixed(1)} ms`;
  return {
    name: `${name}, p50`,
    value: median(timesMs),
    unit: 'ms',
    samples: timesMs.length,
    note: `${spread}; ${ratio.toFixed(1)} × a plain spawn of the same program`,
    ...(targetMs !== undefined && { target: targetMs }),
  };
}

/** One of each in turn, so that whatever else the machine does is in all of them. */
async function life(provider: SandboxProvider, rounds: number): Promise<Row[]> {
  const times = { plain: [], create: [], first: [], exec: [], destroy: [] } as Record<string, number[]>;
  const add = async (name: string, work: () => Promise<unknown>): Promise<void> => {
    times[name]?.push(await timed(work));
  };
  for (let round = -2; round < rounds; round += 1) {
    if (round === 0) for (const each of Object.values(times)) each.length = 0;
    const key = `life-${round}`;
    await add('plain', plainSpawn);
    let ref: SandboxRef | undefined;
    await add('create', async () => {
      ref = await provider.create(spec, key, signal());
      await execTrue(provider, ref, 'first');
    });
    if (ref === undefined) throw new Error('there is no sandbox');
    const made = ref;
    for (let each = 0; each < 3; each += 1) {
      await add('plain', plainSpawn);
      await add('exec', () => execTrue(provider, made, `exec-${each}`));
    }
    await add('destroy', () => provider.destroy(made, signal()));
  }
  const { plain = [], create = [], exec = [], destroy = [] } = times;
  return [
    { name: 'plain spawn, p50', value: median(plain), unit: 'ms', samples: plain.length },
    row('create and first command', create, plain, TARGETS_MS.create),
    row('command', exec, plain, TARGETS_MS.exec),
    row('destroy', destroy, plain, TARGETS_MS.destroy),
  ];
}

function memoryAvailableKb(): number {
  return Number(/^MemAvailable:\s+(\d+)/m.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1] ?? 0);
}

/** Memory of one process, shared pages by its share. */
function pssKb(pid: number): number {
  return Number(/^Pss:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))?.[1] ?? 0);
}

/** Many at once: how long until each ran a command, and what each costs when it idles. */
async function crowd(provider: SandboxProvider, count: number): Promise<Row[]> {
  const before = memoryAvailableKb();
  const refs: SandboxRef[] = [];
  const startedMs = performance.now();
  await Promise.all(
    Array.from({ length: count }, async (_value, index) => {
      const ref = await provider.create(spec, `crowd-${index}`, signal());
      refs.push(ref);
      await execTrue(provider, ref, 'first');
    }),
  );
  const tookMs = performance.now() - startedMs;
  say(`${count} sandboxes run; waiting until they idle.`);
  await delay(IDLE_MS);
  const points = await Promise.all(refs.map((ref) => provider.egressPoint(ref, signal())));
  const holders = points.flatMap((point) => (point === null ? [] : [pssKb(point.pid)]));
  const available = before - memoryAvailableKb();
  const destroyMs = await timed(() => Promise.all(refs.map((ref) => provider.destroy(ref, signal()))));
  return [
    { name: `${count} sandboxes at once, each with a command`, value: tookMs / 1_000, unit: 's', samples: count },
    {
      name: 'memory of an idle sandbox (its process)',
      value: holders.reduce((sum, each) => sum + each, 0) / holders.length,
      unit: 'KB',
      samples: holders.length,
      note: `less memory available on the machine, each: ${(available / count).toFixed(0)} KB (the kernel's share is in it, and whatever else ran)`,
    },
    { name: `${count} sandboxes destroyed at once`, value: destroyMs / 1_000, unit: 's', samples: count },
  ];
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: { quick: { type: 'boolean', default: false }, json: { type: 'string' }, help: { type: 'boolean' } },
  });
  if (values.help === true) {
    print(HELP);
    return 0;
  }
  const loadAtStart = os.loadavg()[0] ?? 0;
  const rootDir = mkdtempSync(path.join(os.tmpdir(), 'longhaul-bench-sandbox-'));
  const provider = createSandboxProviders({ rootDir, logger: createLogger('bench', 'error') })['local'];
  if (provider === undefined) throw new Error('there is no local sandbox provider');
  const rows: Row[] = [];
  try {
    rows.push(...(await life(provider, values.quick ? 5 : 50)));
    rows.push(...(await crowd(provider, values.quick ? 10 : 100)));
  } finally {
    for await (const { ref } of provider.list(OWNER, signal())) await provider.destroy(ref, signal());
    rmSync(rootDir, { recursive: true, force: true });
  }
  print(`${os.cpus().length} cores, Node ${process.version}, load at start ${loadAtStart.toFixed(1)}\n`);
  for (const each of rows) print(showRow(each));
  if (values.json !== undefined) {
    const machine = { cores: os.cpus().length, node: process.version, loadAtStart, quick: values.quick };
    writeFileSync(values.json, `${JSON.stringify({ taken_at: new Date().toISOString(), machine, rows }, null, 2)}\n`);
  }
  return 0;
}

try {
  process.exit(await main());
} catch (error) {
  say(`bench: ${messageOf(error)}`);
  process.exit(1);
}
