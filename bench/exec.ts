import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import type { SessionEvent } from '../contracts/events.ts';
import { createSandboxProviders } from '../activities/sandbox/index.ts';
import type { SandboxProvider, SandboxRef } from '../activities/sandbox/port.ts';
import { LIMITS } from '../contracts/limits.ts';
import { createLogger } from '../telemetry/logger.ts';
import { openSession, scriptMessage, type BenchContext, type Measurement, type Row } from './measurement.ts';
import { isTurnEnd, SessionWatch } from './session-watch.ts';
import { median, quantile } from './stats.ts';

const POLL_MS = 5_000;

async function run(context: BenchContext): Promise<Row[]> {
  const samples = context.quick ? 10 : 100;
  const alone = await ofProvider(samples);
  const inTurn = await ofEffect(context, samples);
  return [
    { name: 'exec `true`, sandbox alone, p50', value: median(alone), unit: 'ms', samples, note: p99(alone) },
    {
      name: 'exec `true`, call to result in a turn, p50',
      value: median(inTurn),
      unit: 'ms',
      samples,
      note: p99(inTurn),
    },
  ];
}

const p99 = (timesMs: number[]): string => `p99 ${quantile(timesMs, 0.99).toFixed(1)} ms`;

/** The local provider by itself: start to end, without ledger and workflow. */
async function ofProvider(samples: number): Promise<number[]> {
  const rootDir = mkdtempSync(path.join(os.tmpdir(), 'longhaul-bench-sandbox-'));
  const provider = createSandboxProviders({ rootDir, logger: createLogger('bench', 'error') })['local'];
  if (provider === undefined) throw new Error('there is no local sandbox provider');
  const signal = AbortSignal.timeout(120_000);
  const ref = await provider.create(
    {
      owner: rootDir,
      labels: {},
      env: {},
      memoryBytes: LIMITS.sandboxMemoryBytes,
      diskBytes: LIMITS.sandboxDiskBytes,
      pids: LIMITS.sandboxPids,
      cpus: LIMITS.sandboxCpus,
      ttlMs: LIMITS.sandboxLeaseMs,
    },
    'bench',
    signal,
  );
  try {
    const timesMs: number[] = [];
    for (let index = -5; index < samples; index += 1) {
      const startedMs = performance.now();
      await execTrue(provider, ref, `bench.${index + 5}`, signal);
      if (index >= 0) timesMs.push(performance.now() - startedMs);
    }
    return timesMs;
  } finally {
    await provider.destroy(ref, signal);
    rmSync(rootDir, { recursive: true, force: true });
  }
}

async function execTrue(
  provider: SandboxProvider,
  ref: SandboxRef,
  execId: string,
  signal: AbortSignal,
): Promise<void> {
  await provider.execStart(ref, { execId, argv: ['bash', '-c', 'true'], timeoutMs: 10_000 }, signal);
  let status: string;
  do {
    status = (await provider.execPoll(ref, execId, { out: 0, err: 0 }, POLL_MS, signal)).status.state;
  } while (status === 'running');
  if (status !== 'exited') throw new Error(`the command ended as ${status}`);
}

/** From the event of the call to the event of its result: Temporal, ledger, approval check and sandbox together. */
async function ofEffect(context: BenchContext, samples: number): Promise<number[]> {
  const { client } = context;
  const sessionId = await openSession(context);
  const watch = new SessionWatch(client, sessionId);
  const step = { tools: [{ name: 'bash', input: { command: 'true' } }] };
  const steps = Array.from({ length: 11 }, () => step);
  const timesMs: number[] = [];
  try {
    while (timesMs.length < samples) {
      const end = watch.next(isTurnEnd);
      await client.sessions.send(sessionId, [scriptMessage([...steps, { text: 'done' }])]);
      await end;
      const { data } = await client.sessions.events(sessionId, { order: 'desc', limit: 200 });
      // The first one of a turn may make or wake the sandbox.
      timesMs.push(...durations(data.toReversed()).slice(-10));
    }
  } finally {
    watch.close();
  }
  return timesMs.slice(0, samples);
}

function durations(events: SessionEvent[]): number[] {
  const calls = new Map(events.filter(({ type }) => type === 'agent.tool_use').map((event) => [event.id, event]));
  return events.flatMap((event) => {
    const call = calls.get(String(event['tool_use_id']));
    if (event.type !== 'agent.tool_result' || call === undefined) return [];
    return [Date.parse(event.created_at) - Date.parse(call.created_at)];
  });
}

/** How long the smallest command takes. */
export const exec: Measurement = { name: 'exec', run };
