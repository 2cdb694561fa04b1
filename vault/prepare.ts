import { LIMITS } from '../contracts/limits.ts';
import { notify } from '../db/listen.ts';
import type { Pool } from '../db/pool.ts';
import { withTransaction } from '../db/pool.ts';
import { insertAudit } from '../db/queries/audit.ts';
import { CREDENTIALS_CHANNEL } from '../db/queries/credentials.ts';
import {
  findSessionCandidates,
  insertSessionCredential,
  listSessionCredentials,
  type SessionCandidate,
} from '../db/queries/session-credentials.ts';
import { loadSessionForTurn, lockSession } from '../db/queries/session-status.ts';
import { mintPlaceholder } from './shape.ts';

/** What an activity may return of it: neither values nor placeholders. */
export interface PreparedCredentials {
  count: number;
  minted: number;
}

/**
 * Gives a session the credentials of its vaults and of those bound to its deployment, agent, user and team, each under a
 * placeholder of its own. May be repeated: what the session has, it keeps; what it lost, it does not get back.
 */
export async function prepareCredentials(pool: Pool, sessionId: string): Promise<PreparedCredentials> {
  return withTransaction(pool, async (tx) => {
    const status = await lockSession(tx, sessionId);
    if (status === 'terminated') return { count: 0, minted: 0 };
    const wanted = withoutShadowed(await findSessionCandidates(tx, sessionId, LIMITS.sessionCredentials));
    if (wanted.length === 0) return { count: 0, minted: 0 };
    const held = new Set((await listSessionCredentials(tx, sessionId)).map((row) => row.credentialId));
    const missing = wanted.filter((candidate) => !held.has(candidate.credentialId));
    for (const candidate of missing) {
      await insertSessionCredential(tx, sessionId, candidate, mintPlaceholder(candidate.shape));
    }
    if (missing.length > 0) {
      const { teamId } = await loadSessionForTurn(tx, sessionId);
      await insertAudit(tx, {
        teamId,
        actor: 'workflow',
        action: 'credential.grant',
        resource: sessionId,
        sessionId,
        details: {
          credentials: missing.map(({ credentialId, vaultId, name, version }) => ({
            id: credentialId,
            vault_id: vaultId,
            name,
            version,
          })),
        },
      });
      await notify(tx, CREDENTIALS_CHANNEL, `session:${sessionId}`);
    }
    return { count: wanted.length, minted: missing.length };
  });
}

/** Of two with one variable, or for one server, the first counts. A key for ssh is not for requests: nothing stands in for it. */
function withoutShadowed(candidates: readonly SessionCandidate[]): SessionCandidate[] {
  const taken = new Set<string>();
  return candidates.filter(({ kind, name, spec }) => {
    if (kind === 'ssh') return false;
    const place = spec.env === null ? `${kind} ${name}` : `env ${spec.env}`;
    if (taken.has(place)) return false;
    taken.add(place);
    return true;
  });
}
