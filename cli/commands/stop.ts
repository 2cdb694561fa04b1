import { endHarnessProcesses, killHarnessProcesses } from '../../activities/harness/host/registry.ts';
import { stopAllSandboxes } from '../../activities/sandbox/index.ts';
import type { CliConfig } from '../config.ts';
import { EXIT, say } from '../output.ts';
import { homePaths, readStackState, removeDevJson } from '../stack/home.ts';
import { endLeftovers } from '../stack/leftovers.ts';
import { lockHolder } from '../stack/lock.ts';
import { signalProcess, waitForEnd } from '../stack/processes.ts';

/** The sum of the roles' own grace times, and some more. */
const STOP_TIMEOUT_MS = 90_000;

/** Ends the stack of this home, however it was started, and waits for it. */
export async function stop(config: CliConfig): Promise<number> {
  const paths = homePaths(config.home);
  const supervisor = lockHolder(paths.lock);
  if (supervisor === null) {
    const processes = await endLeftovers(readStackState(paths), say);
    const ended = processes + stopAllSandboxes(paths.sandboxes) + (await endHarnessProcesses(paths.home));
    removeDevJson(paths);
    say(ended === 0 ? `Nothing runs in ${paths.home}.` : 'Stopped.');
    return EXIT.ok;
  }
  signalProcess(supervisor, 'SIGTERM');
  if (!(await waitForEnd(supervisor, STOP_TIMEOUT_MS))) {
    say(
      `The supervisor (pid ${supervisor.pid}) did not end in ${STOP_TIMEOUT_MS / 1_000} s: ending everything at once.`,
    );
    signalProcess(supervisor, 'SIGKILL');
    await waitForEnd(supervisor, 5_000);
    await endLeftovers(readStackState(paths), say);
    stopAllSandboxes(paths.sandboxes);
    killHarnessProcesses(paths.home);
    removeDevJson(paths);
    return EXIT.failed;
  }
  say('Stopped.');
  return EXIT.ok;
}
