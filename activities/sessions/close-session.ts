import { withTransaction } from '../../db/pool.ts';
import { currentSandbox } from '../../db/queries/sandboxes.ts';
import { writeSessionEnd } from '../../db/queries/session-end.ts';
import { loadSessionForTurn } from '../../db/queries/session-status.ts';
import type { CloseSessionArgs } from '../../workflows/activity-types.ts';
import { collectOrTell } from '../artifacts/collect.ts';
import { withHeartbeat } from '../attempt.ts';
import type { ActivityDeps } from '../deps.ts';
import { closeHarness } from '../harness/close.ts';
import { actWhenIdle } from '../sandbox/idle.ts';
import { forgetLease } from '../sandbox/lease.ts';
import { deleteSnapshots, releaseSandbox } from '../sandbox/release.ts';
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
    const session = await loadSessionForTurn(deps.pool, args.sessionId);
    await closeHarness(deps, session, true);
    const sandbox = await currentSandbox(deps.pool, args.sessionId);
    if (sandbox !== undefined) {
      const { teamId } = session;
      await collectOrTell(deps, { id: args.sessionId, teamId, isOver: true }, signal);
      await releaseSandbox(deps, sandbox, signal);
    }
    await deleteSnapshots(deps, args.sessionId, signal);
    // The record has taken its credentials; the broker forgets their values at once instead of when it hears of it.
    await deps.egress?.revoke(args.sessionId, signal);
  });
}

/** An idle session keeps its files but holds no processes, when its environment says so by now; the reaper looks later. */
export async function pauseSandbox(deps: ActivityDeps, args: { sessionId: string }): Promise<void> {
  await withHeartbeat(async (signal) => {
    const sandbox = await currentSandbox(deps.pool, args.sessionId);
    if (sandbox?.state !== 'running' || sandbox.ref === null) return;
    const { teamId } = await loadSessionForTurn(deps.pool, args.sessionId);
    await collectOrTell(deps, { id: args.sessionId, teamId }, signal);
    await actWhenIdle(deps, sandbox, 'pause', signal);
  });
}
