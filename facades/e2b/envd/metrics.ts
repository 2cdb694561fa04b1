import type { E2bDeps, LiveSandbox } from '../sandboxes.ts';
import { runInside } from './run.ts';

interface Usage {
  /** Unix seconds. */
  ts: number;
  cpu_count: number;
  cpu_used_pct: number;
  mem_used: number;
  mem_total: number;
  disk_used: number;
  disk_total: number;
}

/** Sums resident pages and CPU ticks of all processes twice, a moment apart; then the files. */
const SCRIPT = `
ticks() { cat /proc/[0-9]*/stat 2>/dev/null | sed 's/^.*) //' | awk '{ t += $12 + $13 } END { print t + 0 }'; }
before=$(ticks); sleep 0.2; after=$(ticks)
pages=$(cat /proc/[0-9]*/statm 2>/dev/null | awk '{ p += $2 } END { print p + 0 }')
echo $((after - before)) $(getconf CLK_TCK) $((pages * $(getconf PAGESIZE))) $(du -sk /workspace 2>/dev/null | cut -f 1)
`;

const WINDOW_SECONDS = 0.2;

/** What the sandbox uses just now. */
export async function measure(deps: E2bDeps, live: LiveSandbox): Promise<Usage> {
  const { stdout } = await runInside(deps, live, ['sh', '-c', SCRIPT]);
  const [ticks = 0, perSecond = 100, memoryBytes = 0, diskKib = 0] = stdout.toString().trim().split(' ').map(Number);
  const { cpus, memoryBytes: memoryTotal, diskBytes } = live.row;
  return {
    ts: Math.floor(Date.now() / 1_000),
    cpu_count: cpus,
    cpu_used_pct: Math.min(100 * cpus, Math.max(0, Math.round((100 * ticks) / perSecond / WINDOW_SECONDS))),
    mem_used: memoryBytes,
    mem_total: memoryTotal,
    disk_used: diskKib * 1_024,
    disk_total: diskBytes,
  };
}
