import type { SessionCredential } from '../../contracts/credentials.ts';
import type { SandboxRow } from '../../db/queries/sandboxes.ts';
import type { Lease } from './lease.ts';
import type { Step } from './step.ts';
import { runStep } from './step.ts';

const SEARCH_MS = 120_000;
/** Clocks differ; a file that is older than its sandbox by more than this came with the image. */
const SLACK_MINUTES = 60;

/** `$1` minutes, then `-e` and a placeholder, again and again. Prints the files that hold one. */
const SCRIPT = `
command -v find >/dev/null 2>&1 && command -v grep >/dev/null 2>&1 || exit 78
minutes=$1; shift
find / /workspace /mnt/session "$HOME" -xdev -type f -mmin "-$minutes" -exec grep -lsF "$@" -- {} + 2>/dev/null
exit 0
`;

/**
 * True unless the files that were written in the sandbox are known to hold none of the session's placeholders. Saved for other
 * sessions they would be of no use to them, and every use would look like theft.
 */
export async function mayHoldPlaceholders(
  lease: Lease,
  sandbox: Pick<SandboxRow, 'createdAt'>,
  credentials: readonly SessionCredential[],
  signal: AbortSignal,
): Promise<boolean> {
  const shown = credentials.filter(({ env }) => env !== null);
  if (shown.length === 0) return false;
  const minutes = Math.ceil((Date.now() - sandbox.createdAt.getTime()) / 60_000) + SLACK_MINUTES;
  const patterns = shown.flatMap(({ placeholder }) => ['-e', placeholder]);
  const argv = ['sh', '-c', SCRIPT, 'search', String(minutes), ...patterns];
  const step: Step = { name: 'placeholders', argv, timeoutMs: SEARCH_MS, cwd: '/' };
  const { status, output } = await runStep(lease, step, signal);
  return status.state !== 'exited' || status.exitCode !== 0 || output.trim() !== '';
}
