import type { StackState } from './home.ts';
import { endProcess, isAlive } from './processes.ts';

const STOP_SIGNAL = {
  worker: 'SIGTERM',
  api: 'SIGTERM',
  egress: 'SIGTERM',
  temporal: 'SIGTERM',
  postgres: 'SIGINT',
} as const;

/**
 * Ends what a killed supervisor left running, users before servers. A pid that meanwhile belongs to another process is left
 * alone: its start time differs. Returns how many were ended.
 */
export async function endLeftovers(state: StackState, say: (line: string) => void): Promise<number> {
  let ended = 0;
  for (const role of ['worker', 'api', 'egress', 'temporal', 'postgres'] as const) {
    const identity = state.processes[role];
    if (identity === undefined || !isAlive(identity)) continue;
    say(`ending the ${role} (pid ${identity.pid}) that an earlier run left behind`);
    await endProcess(identity, STOP_SIGNAL[role], 10_000);
    ended += 1;
  }
  return ended;
}
