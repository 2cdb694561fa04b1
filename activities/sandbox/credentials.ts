import type { SessionCredential } from '../../contracts/credentials.ts';
import { listSessionCredentials } from '../../db/queries/session-credentials.ts';
import type { ActivityDeps } from '../deps.ts';
import { prepareCredentials } from '../../vault/prepare.ts';

/** Gives the session what its vaults hold, and returns it. */
export async function prepareSessionCredentials(deps: ActivityDeps, sessionId: string): Promise<SessionCredential[]> {
  await prepareCredentials(deps.pool, sessionId);
  return currentCredentials(deps, sessionId);
}

/** The placeholders of a session that still stand for something. */
export async function currentCredentials(deps: ActivityDeps, sessionId: string): Promise<SessionCredential[]> {
  return (await listSessionCredentials(deps.pool, sessionId)).filter(({ revokedAt }) => revokedAt === null);
}
