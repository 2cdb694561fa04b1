import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';

/** `0-3,8` → 0, 1, 2, 3, 8. */
function parseList(list: string): number[] {
  return list.split(',').flatMap((range) => {
    const [first = NaN, last = first] = range.split('-').map(Number);
    return Number.isNaN(first) ? [] : Array.from({ length: last - first + 1 }, (_value, index) => first + index);
  });
}

/** Processors this process may use. */
function allowedProcessors(): number[] {
  const list = /^Cpus_allowed_list:\s*(\S+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1];
  return list === undefined ? [] : parseList(list);
}

/**
 * The processors that all commands of a sandbox share where no control group bounds their time: as many as it may have,
 * the same ones for every command, and spread over the machine by the sandbox's id.
 */
export function processorsFor(id: string, cpus: number, allowed = allowedProcessors()): number[] {
  const wanted = Math.max(1, Math.ceil(cpus));
  if (wanted >= allowed.length) return allowed;
  const first = createHash('sha256').update(id).digest().readUInt32BE(4) % allowed.length;
  return Array.from({ length: wanted }, (_value, index) => allowed[(first + index) % allowed.length] ?? 0);
}
