import { setImmediate as nextTurn, setTimeout as delay } from 'node:timers/promises';
import type { ExecSpec, ExecState, SandboxProvider, SandboxRef, SandboxSpec } from '../../activities/sandbox/port.ts';

const MIB = 1024 * 1024;

/** Long enough for the slowest machine; a test that waits this long has failed. */
export const LONG_MS = 180_000;

/** A signal of its own for each call, so that nothing hangs. */
export function soon(): AbortSignal {
  return AbortSignal.timeout(LONG_MS);
}

/** A small sandbox; `change` overrides parts of it. */
export function smallSpec(owner: string, change: Partial<SandboxSpec> = {}): SandboxSpec {
  const limits = { memoryBytes: 256 * MIB, diskBytes: 64 * MIB, pids: 64, cpus: 1, ttlMs: 600_000 };
  return { owner, labels: { purpose: 'test' }, env: {}, ...limits, ...change };
}

export interface Finished {
  status: ExecState;
  stdout: string;
  stderr: string;
}

/** Follows a started command to its end and to the end of its output. */
export async function follow(provider: SandboxProvider, ref: SandboxRef, execId: string): Promise<Finished> {
  const signal = soon();
  const out: Uint8Array[] = [];
  const err: Uint8Array[] = [];
  let next = { out: 0, err: 0 };
  for (;;) {
    const poll = await provider.execPoll(ref, execId, next, 5_000, signal);
    out.push(poll.stdout);
    err.push(poll.stderr);
    next = poll.next;
    const isDrained = poll.stdout.length === 0 && poll.stderr.length === 0;
    if (poll.status.state !== 'running' && isDrained) {
      return { status: poll.status, stdout: Buffer.concat(out).toString(), stderr: Buffer.concat(err).toString() };
    }
  }
}

let executions = 0;

/** Runs one command to its end under an id of its own. */
export async function runIn(
  provider: SandboxProvider,
  ref: SandboxRef,
  argv: string[],
  change: Partial<ExecSpec> = {},
): Promise<Finished> {
  executions += 1;
  const execId = change.execId ?? `run-${executions}`;
  await provider.execStart(ref, { execId, argv, timeoutMs: 150_000, ...change }, soon());
  return follow(provider, ref, execId);
}

/** Runs a shell line. */
export function shell(
  provider: SandboxProvider,
  ref: SandboxRef,
  line: string,
  change: Partial<ExecSpec> = {},
): Promise<Finished> {
  return runIn(provider, ref, ['bash', '-c', line], change);
}

/**
 * Asks again until the answer is yes: tests wait for conditions, never for time. Without a pause for what is over soon; with
 * one, a machine that is busy gets on with what is waited for.
 */
export async function until(what: string, isTrue: () => Promise<boolean>, pauseMs = 10): Promise<void> {
  const deadlineMs = Date.now() + LONG_MS;
  while (!(await isTrue())) {
    if (Date.now() > deadlineMs) throw new Error(`never happened: ${what}`);
    await (pauseMs === 0 ? nextTurn() : delay(pauseMs));
  }
}
