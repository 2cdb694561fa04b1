import type { Queryable } from '../pool.ts';
import { cancelApprovals } from './approvals.ts';
import { endInputs, endTerminateInputs } from './inputs.ts';
import { deleteCredentials } from './credentials.ts';
import { endSessionCredentials } from './session-credentials.ts';
import { lockSession, setTerminated } from './session-status.ts';
import { deleteVault } from './vaults.ts';
import { revokeSessionTokens } from './session-tokens.ts';
import { revokeSessionKeys } from './virtual-keys.ts';

/**
 * Ends a session for good in the record: questions, queue, keys and status. Its sandbox is the caller's, or the reaper's.
 * `inputReason` stands on the inputs that waited.
 */
export async function writeSessionEnd(
  tx: Queryable,
  sessionId: string,
  reason: string,
  inputReason: string = `session terminated: ${reason}`,
): Promise<void> {
  await lockSession(tx, sessionId);
  await cancelApprovals(tx, sessionId);
  await endTerminateInputs(tx, sessionId);
  await endInputs(tx, { sessionId }, 'cancelled', inputReason);
  await revokeSessionKeys(tx, sessionId);
  await revokeSessionTokens(tx, sessionId);
  await endSessionCredentials(tx, sessionId);
  await deleteOwnVaults(tx, sessionId);
  await setTerminated(tx, sessionId, reason);
}

/** Tokens that came with the resources of a session end with it: their values are destroyed. */
async function deleteOwnVaults(tx: Queryable, sessionId: string): Promise<void> {
  const own = await tx.query<{ id: string }>(
    `SELECT DISTINCT r->'credential'->>'vaultId' AS id FROM sessions, jsonb_array_elements(resources) AS r
     WHERE sessions.id = $1 AND r->'credential'->>'vaultId' IS NOT NULL`,
    [sessionId],
  );
  for (const { id } of own.rows) {
    await deleteCredentials(tx, { vaultId: id });
    await deleteVault(tx, id);
  }
}
