import { withTransaction } from '../../db/pool.ts';
import { currentSandbox, updateSandbox } from '../../db/queries/sandboxes.ts';
import { writeSessionEnd } from '../../db/queries/session-end.ts';
import { loadSessionForTurn } from '../../db/queries/session-status.ts';
import type { CloseSessionArgs } from '../../workflows/activity-types.ts';
import { collectOrTell } from '../artifacts/collect.ts';
import { withHeartbeat } from '../attempt.ts';
import type { ActivityDeps } from '../deps.ts';
import { forgetLease } from '../sandbox/lease.ts';
import type { SessionKeys } from '../model/session-keys.ts';

/**
 * Stop is final (invariant 10): state, queue, questions and keys in one transaction, then the sandbox; what the crash of
 * this attempt leaves is the reaper's.
 */
export async function closeSession(deps: ActivityDeps, keys: SessionKeys, args: CloseSessionArgs): Promise<void> {
  await withHeartbeat(async (signal) => {
    await withTransaction(deps.pool, (tx) => writeSessionEnd(tx, args.sessionId, args.reason));
    keys.forget(args.sessionId);
    forgetLease(deps, args.sessionId);
    const sandbox = await currentSandbox(deps.pool, args.sessionId);
    if (sandbox === undefined) return;
    const { teamId } = await loadSessionForTurn(deps.pool, args.sessionId);
    await collectOrTell(deps, { id: args.sessionId, teamId, isOver: true }, signal);
    if (sandbox.ref !== null) await deps.sandboxProvider(sandbox.provider).destroy(sandbox.ref, signal);
    await updateSandbox(deps.pool, sandbox.id, 'destroyed', 0);
  });
}

/** An idle session keeps its files but holds no processes. */
export async function pauseSandbox(deps: ActivityDeps, args: { sessionId: string }): Promise<void> {
  await withHeartbeat(async (signal) => {
    const sandbox = await currentSandbox(deps.pool, args.sessionId);
    if (sandbox?.state !== 'running' || sandbox.ref === null) return;
    forgetLease(deps, args.sessionId);
    const { teamId } = await loadSessionForTurn(deps.pool, args.sessionId);
    await collectOrTell(deps, { id: args.sessionId, teamId }, signal);
    await deps.sandboxProvider(sandbox.provider).pause(sandbox.ref, signal);
    await updateSandbox(deps.pool, sandbox.id, 'paused', 0);
  });
}
