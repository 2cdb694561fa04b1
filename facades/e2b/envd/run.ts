import { randomUUID } from 'node:crypto';
import type { E2bDeps, LiveSandbox } from '../sandboxes.ts';
import { RpcError } from './connect.ts';

const RUN_MS = 60_000;
const OUTPUT_BYTES = 16 * 1024 * 1024;

export interface RunResult {
  exitCode: number;
  stdout: Buffer;
  stderr: string;
}

/** Runs a short command inside to its end, for what the port has no call for. */
export async function runInside(deps: E2bDeps, live: LiveSandbox, argv: string[]): Promise<RunResult> {
  const execId = `e2b-internal-${randomUUID()}`;
  const signal = AbortSignal.timeout(RUN_MS);
  await deps.provider.execStart(live.ref, { execId, argv, cwd: '/', timeoutMs: RUN_MS }, signal);
  const stdout: Uint8Array[] = [];
  const stderr: Uint8Array[] = [];
  let next = { out: 0, err: 0 };
  for (;;) {
    const poll = await deps.provider.execPoll(live.ref, execId, next, 5_000, signal);
    stdout.push(poll.stdout);
    stderr.push(poll.stderr);
    next = poll.next;
    if (next.out > OUTPUT_BYTES) throw new RpcError('resource_exhausted', 'there is too much to tell');
    if (poll.status.state === 'running' || poll.stdout.length > 0 || poll.stderr.length > 0) continue;
    if (poll.status.state !== 'exited')
      throw new RpcError('internal', `a command of the server was ${poll.status.state}`);
    const { exitCode } = poll.status;
    return { exitCode, stdout: Buffer.concat(stdout), stderr: Buffer.concat(stderr).toString().trim() };
  }
}

/** The exec id of a program's command in the provider's journal. */
export function execIdOf(pid: number): string {
  return `e2b-${pid}`;
}
