import { LonghaulError } from '../../contracts/error-codes.ts';
import { newId } from '../../contracts/ids.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { withTransaction } from '../../db/pool.ts';
import { appendEvents } from '../../db/queries/events.ts';
import type { SandboxPast, SandboxRow, SandboxStart } from '../../db/queries/sandboxes.ts';
import {
  currentSandbox,
  insertSandbox,
  lockSandboxOf,
  readSandboxPast,
  updateSandbox,
} from '../../db/queries/sandboxes.ts';
import type { SessionForTurn } from '../../db/queries/session-status.ts';
import { lockSession } from '../../db/queries/session-status.ts';
import type { ActivityDeps } from '../deps.ts';
import { closeEgress } from './egress.ts';

export type SandboxOfSession = { kind: 'sandbox'; sandbox: SandboxRow } | { kind: 'failed'; message: string };

/**
 * The row of the session's sandbox. It comes before the sandbox, so that a crash in between leaves a trace for the reaper.
 * A session whose sandbox is gone gets the next one, made from the files that were saved last.
 */
export async function sandboxRow(
  deps: ActivityDeps,
  session: SessionForTurn,
  provider: string,
): Promise<SandboxOfSession> {
  const known = await currentSandbox(deps.pool, session.id);
  if (known !== undefined) return { kind: 'sandbox', sandbox: known };
  return withTransaction(deps.pool, async (tx) => {
    // In this order: whoever pauses or destroys holds the one and asks for the other.
    await lockSandboxOf(tx, session.id);
    const status = await lockSession(tx, session.id);
    if (status === 'terminated') throw new LonghaulError('session_terminated', 'the session is terminated');
    const other = await currentSandbox(tx, session.id);
    if (other !== undefined) return { kind: 'sandbox', sandbox: other };
    const past = await readSandboxPast(tx, session.id);
    const message = whyNot(past);
    if (message !== undefined) return { kind: 'failed', message };
    const id = newId('sandbox');
    const start = startOf(past, provider);
    const note = past.wasReady ? noteOf(start) : null;
    await insertSandbox(tx, {
      id,
      sessionId: session.id,
      provider,
      leaseMs: LIMITS.sandboxLeaseMs,
      attempt: diedUnprepared(past) ? (past.last?.attempt ?? 0) + 1 : 1,
      note,
      start,
    });
    if (note !== null) {
      await appendEvents(tx, session.id, [
        {
          type: 'session.sandbox_rebuilt',
          dedupeKey: `sandbox/${id}/rebuilt`,
          payload: { sandbox_id: id, snapshot_at: start?.savedAt ?? null, message: note },
        },
      ]);
    }
    const sandbox = await currentSandbox(tx, session.id);
    if (sandbox === undefined) throw new Error('the row that was just written is not there');
    return { kind: 'sandbox', sandbox };
  });
}

/** A failure holds for its turn: the model is told instead of trying again and again. */
function whyNot({ last, currentTurn }: SandboxPast): string | undefined {
  if (last?.failure === undefined || last.failure === null || last.failure.turn < currentTurn) return undefined;
  return `the sandbox could not be prepared (${last.failure.step}): ${last.failure.message}`;
}

function diedUnprepared({ last }: SandboxPast): boolean {
  return last !== undefined && last.preparedAt === null && last.failure === null;
}

function startOf({ saved }: SandboxPast, provider: string): Extract<SandboxStart, { kind: 'session' }> | null {
  if (saved === null || saved.provider !== provider) return null;
  return { kind: 'session', ref: saved.ref, savedAt: saved.savedAt.toISOString() };
}

/** Told to the agent with its next result. */
function noteOf(start: Extract<SandboxStart, { kind: 'session' }> | null): string {
  const files =
    start === null
      ? 'Its files are those of a new session: what you had written is gone.'
      : `Its files are those that were saved at ${start.savedAt}: later changes are gone.`;
  return `The sandbox you used before is gone, and this is another one. ${files} No process you started runs any more.`;
}

/** The provider has it no more; the next lease makes another one. */
export async function loseSandbox(deps: ActivityDeps, sandbox: SandboxRow, signal: AbortSignal): Promise<void> {
  deps.logger.warn({ sandboxId: sandbox.id, provider: sandbox.provider }, 'sandbox is gone');
  await updateSandbox(deps.pool, sandbox.id, 'destroyed', 0);
  try {
    await closeEgress(deps, sandbox.id, signal);
  } catch (error) {
    deps.logger.warn({ sandboxId: sandbox.id, err: error }, 'the egress broker could not be told');
  }
}
