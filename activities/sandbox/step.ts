import { setImmediate as soon } from 'node:timers/promises';
import { LIMITS } from '../../contracts/limits.ts';
import { withTransaction } from '../../db/pool.ts';
import type { EventDraft } from '../../db/queries/events.ts';
import { appendEvents } from '../../db/queries/events.ts';
import { lockSession } from '../../db/queries/session-status.ts';
import type { ActivityDeps } from '../deps.ts';
import { answerWithin } from './abort.ts';
import type { Lease } from './lease.ts';
import type { ExecState } from './port.ts';

const POLL_MS = 5_000;

/** A step cannot succeed in this sandbox, nor in another one like it. */
export class StepFailed extends Error {
  readonly step: string;

  constructor(step: string, message: string) {
    super(message);
    this.name = 'StepFailed';
    this.step = step;
  }
}

/** The sandbox died under a step; another one begins anew. */
export class SandboxDied extends Error {
  constructor() {
    super('the sandbox died while it was prepared');
    this.name = 'SandboxDied';
  }
}

export interface Step {
  name: string;
  argv: string[];
  timeoutMs: number;
  cwd?: string;
  stdin?: Uint8Array;
}

export interface StepEnd {
  status: Extract<ExecState, { state: 'exited' } | { state: 'killed' }>;
  /** The end of what it printed. */
  output: string;
  durationMs: number;
}

/** Appends to the log of a session; a repeated attempt appends nothing. */
export async function tell(deps: ActivityDeps, sessionId: string, drafts: EventDraft[]): Promise<void> {
  await withTransaction(deps.pool, async (tx) => {
    await lockSession(tx, sessionId);
    await appendEvents(tx, sessionId, drafts);
  });
}

/**
 * Runs a command of the preparation to its end, as a durable one: an attempt after a crash attaches to it, so it runs once in
 * each sandbox. Throws `SandboxDied` when nobody can say how it ended.
 */
export async function runStep(lease: Lease, step: Step, signal: AbortSignal): Promise<StepEnd> {
  const { provider, ref, env } = lease;
  const { name, ...command } = step;
  const execId = `prepare.${name}`;
  const startedMs = Date.now();
  await provider.execStart(ref, { execId, env, ...command }, answerWithin(signal));
  const tail = new Tail();
  let next = { out: 0, err: 0 };
  for (;;) {
    const poll = await provider.execPoll(ref, execId, next, POLL_MS, answerWithin(signal, POLL_MS));
    tail.add(poll.stdout);
    tail.add(poll.stderr);
    next = poll.next;
    const { status } = poll;
    if (status.state !== 'running' && poll.stdout.length === 0 && poll.stderr.length === 0) {
      if (status.state === 'lost' || status.state === 'absent') throw new SandboxDied();
      return { status, output: tail.text(), durationMs: Date.now() - startedMs };
    }
    signal.throwIfAborted();
    await soon();
  }
}

/** The last bytes of both streams, as they came. */
class Tail {
  private bytes = Buffer.alloc(0);

  add(more: Uint8Array): void {
    if (more.length > 0) this.bytes = Buffer.concat([this.bytes, more]).subarray(-LIMITS.stepOutputBytes);
  }

  text(): string {
    return this.bytes.toString('utf8').replaceAll('\0', '\uFFFD');
  }
}
