import { readFileSync } from 'node:fs';
import type { Row } from '../measurement.ts';
import { median, quantile } from '../stats.ts';
import { requestBody, send, type Timing, type Way } from './client.ts';
import type { World } from './world.ts';

/** What every case gets. */
export interface Bench {
  world: World;
  direct: Way;
  gateway: Way;
  quick: boolean;
}

export interface Case {
  name: string;
  run: (bench: Bench) => Promise<Row[]>;
}

const CLOCK_TICKS_PER_SECOND = 100;

/** CPU time a process has used, in milliseconds. */
function cpuMs(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return ((Number(fields[11]) + Number(fields[12])) * 1_000) / CLOCK_TICKS_PER_SECOND;
}

async function inTurn(way: Way, body: Buffer, requests: number): Promise<Timing[]> {
  const timings: Timing[] = [];
  for (let request = 0; request < requests; request += 1) timings.push(await send(way, body));
  return timings;
}

async function atOnce(way: Way, body: Buffer, total: number, parallel: number): Promise<Timing[]> {
  const timings: Timing[] = [];
  let left = total;
  const worker = async (): Promise<void> => {
    for (; left > 0;) {
      left -= 1;
      timings.push(await send(way, body));
    }
  };
  await Promise.all(Array.from({ length: parallel }, worker));
  return timings;
}

interface Compared {
  addedMs: number;
  directMs: number;
  bestMs: number;
  cpuPerRequestMs: number;
  samples: number;
}

/**
 * Rounds of one way and the other take turns, so that whatever else the machine does hits both; added = the median
 * over rounds of the difference of the rounds' medians.
 */
async function interleaved(
  { world, direct, gateway, quick }: Bench,
  body: Buffer,
  of: (timing: Timing) => number,
): Promise<Compared> {
  const rounds = quick ? 5 : 25;
  const requests = quick ? 20 : 60;
  await inTurn(direct, body, requests);
  await inTurn(gateway, body, requests * 2);
  const added: number[] = [];
  const base: number[] = [];
  let usedMs = 0;
  for (let round = 0; round < rounds; round += 1) {
    const first = median((await inTurn(direct, body, requests)).map(of));
    const cpuBefore = cpuMs(world.gatewayPid);
    const second = median((await inTurn(gateway, body, requests)).map(of));
    usedMs += cpuMs(world.gatewayPid) - cpuBefore;
    base.push(first);
    added.push(second - first);
  }
  return {
    addedMs: median(added),
    directMs: median(base),
    bestMs: Math.min(...added),
    cpuPerRequestMs: usedMs / (rounds * requests),
    samples: rounds * requests,
  };
}

function latency(name: string, bytes: number, targetMs: number): Case {
  return {
    name,
    run: async (bench) => {
      const result = await interleaved(bench, requestBody(bytes), ({ totalMs }) => totalMs);
      const note = `direct ${result.directMs.toFixed(2)} ms; best round +${result.bestMs.toFixed(2)} ms; gateway CPU ${result.cpuPerRequestMs.toFixed(2)} ms a request`;
      return [
        {
          name: `added median, ${name}`,
          value: result.addedMs,
          unit: 'ms',
          target: targetMs,
          samples: result.samples,
          note,
        },
      ];
    },
  };
}

const firstToken: Case = {
  name: 'stream',
  run: async (bench) => {
    const body = requestBody(1_024, { events: 200 });
    const result = await interleaved(bench, body, ({ firstByteMs }) => firstByteMs);
    const note = `direct ${result.directMs.toFixed(2)} ms; best round +${result.bestMs.toFixed(2)} ms; gateway CPU ${result.cpuPerRequestMs.toFixed(2)} ms a stream of 200 events`;
    return [
      {
        name: 'added time to first byte, 200 events',
        value: result.addedMs,
        unit: 'ms',
        target: 1,
        samples: result.samples,
        note,
      },
    ];
  },
};

const throughput: Case = {
  name: 'throughput',
  run: async ({ direct, gateway, quick }) => {
    const body = requestBody(1_024);
    const total = quick ? 1_000 : 8_000;
    const rate = async (way: Way): Promise<number> => {
      await atOnce(way, body, total / 4, 32);
      const startedMs = performance.now();
      await atOnce(way, body, total, 32);
      return (total * 1_000) / (performance.now() - startedMs);
    };
    const [base, through] = [await rate(direct), await rate(gateway)];
    const note = `direct ${base.toFixed(0)} a second, gateway ${((100 * through) / base).toFixed(0)} % of it; three processes share the cores`;
    return [{ name: 'requests a second at 32 in parallel, 1 KB', value: through, unit: '/s', samples: total, note }];
  },
};

const paced: Case = {
  name: 'paced',
  run: async ({ direct, gateway, quick }) => {
    const parallel = 200;
    const body = requestBody(1_024, { events: quick ? 50 : 250, paceMs: 20 });
    const worst = async (way: Way): Promise<number[]> =>
      (await atOnce(way, body, parallel, parallel)).map(({ maxGapMs }) => maxGapMs);
    await worst(gateway);
    const [base, gaps] = [await worst(direct), await worst(gateway)];
    const note = `p50 of the streams' longest gaps ${median(gaps).toFixed(1)} ms, p99 ${quantile(gaps, 0.99).toFixed(1)} ms; direct: longest ${Math.max(...base).toFixed(1)} ms`;
    return [
      {
        name: 'longest gap, 200 streams paced at 20 ms',
        value: Math.max(...gaps),
        unit: 'ms',
        target: 50,
        samples: parallel,
        note,
      },
    ];
  },
};

const memory: Case = {
  name: 'memory',
  run: ({ world }) => {
    const status = readFileSync(`/proc/${world.gatewayPid}/status`, 'utf8');
    const mb = (field: string): number => Number(new RegExp(`${field}:\\s+(\\d+)`).exec(status)?.[1] ?? 0) / 1_024;
    const note = `highest so far ${mb('VmHWM').toFixed(0)} MB`;
    return Promise.resolve([{ name: 'gateway RSS after all of it', value: mb('VmRSS'), unit: 'MB', samples: 1, note }]);
  },
};

/** In this order: what is sensitive to a warm heap first. */
export const CASES: readonly Case[] = [
  latency('1 KB', 1_024, 0.6),
  latency('400 KB', 400 * 1_024, 1.5),
  firstToken,
  throughput,
  paced,
  memory,
];
