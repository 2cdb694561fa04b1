import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import type { DevJson } from '../cli/stack/home.ts';

/** Memory in MB: `pss` counts shared pages once over all processes, `rss` in each. */
export interface Memory {
  pss: number;
  rss: number;
}

function childrenOf(pid: number): number[] {
  const children: number[] = [];
  for (const name of readdirSync('/proc').filter((entry) => /^\d+$/.test(entry))) {
    try {
      const stat = readFileSync(`/proc/${name}/stat`, 'utf8');
      const parent = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
      if (parent === pid) children.push(Number(name), ...childrenOf(Number(name)));
    } catch {
      // It has ended meanwhile.
    }
  }
  return children;
}

function one(pid: number): Memory {
  try {
    const text = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8');
    const read = (name: string): number =>
      Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(text)?.[1] ?? 0) / 1_024;
    return { pss: read('Pss'), rss: read('Rss') };
  } catch {
    return { pss: 0, rss: 0 };
  }
}

const add = (a: Memory, b: Memory): Memory => ({ pss: a.pss + b.pss, rss: a.rss + b.rss });

/** A process with its children: Postgres has one for each connection. */
function tree(pid: number | null): Memory {
  if (pid === null) return { pss: 0, rss: 0 };
  return [pid, ...childrenOf(pid)].map(one).reduce(add, { pss: 0, rss: 0 });
}

type MeasuredRole = 'api' | 'worker' | 'temporal' | 'postgres';

/** Memory of each role now; the gateway is in the api's process. */
export function memoryOf(pids: DevJson['pids']): Record<MeasuredRole, Memory> {
  return {
    api: tree(pids.api),
    // Its children are sandboxes, which are the agents' memory, not ours.
    worker: pids.worker === null ? { pss: 0, rss: 0 } : one(pids.worker),
    temporal: tree(pids.temporal),
    postgres: tree(pids.postgres),
  };
}

/** Waits until the sum has not moved by more than 1 MB for some seconds, at most for `limitMs`. */
export async function settled(pids: DevJson['pids'], limitMs: number): Promise<Record<MeasuredRole, Memory>> {
  const deadlineMs = Date.now() + limitMs;
  let calmSinceMs = Date.now();
  let memory = memoryOf(pids);
  let base = sumPss(memory);
  while (Date.now() < deadlineMs && Date.now() - calmSinceMs < 4_000) {
    await delay(500);
    memory = memoryOf(pids);
    const now = sumPss(memory);
    if (Math.abs(now - base) <= 1) continue;
    base = now;
    calmSinceMs = Date.now();
  }
  return memory;
}

function sumPss(memory: Record<MeasuredRole, Memory>): number {
  return Object.values(memory).reduce((sum, { pss }) => sum + pss, 0);
}
