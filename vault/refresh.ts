import type { CredentialSpec, SecretPart, SecretParts } from '../contracts/credentials.ts';
import type { Pool, Queryable } from '../db/pool.ts';
import { withAdvisoryLock } from '../db/pool.ts';
import { insertAudit } from '../db/queries/audit.ts';
import {
  clearRefreshStarted,
  findSealedCredential,
  markRefreshStarted,
  REFRESH_LOCKS,
  setNeedsReauth,
  type SealedCredential,
} from '../db/queries/credential-secrets.ts';
import { lockCredential, replaceVersion } from '../db/queries/credentials.ts';
import { openAll, placeOf } from './backends/postgres.ts';
import type { Clock } from './clock.ts';
import type { KeyRing } from './key-ring.ts';
import { renew, type RefreshOutcome } from './oauth.ts';
import type { Outbound } from './outbound.ts';
import { sealParts } from './seal.ts';

export interface RefreshDeps {
  pool: Pool;
  ring: KeyRing;
  outbound: Outbound;
  clock: Clock;
}

const ACTOR = 'egress';

/**
 * Renews an access token, in one process at a time. Undefined: somebody else did it meanwhile, or it is gone.
 *
 * Many servers take a refresh token once. Before it leaves, a mark is committed; answer and mark are settled in one
 * transaction. Who finds a mark comes after a process that died between the two, and cannot know whether the server took
 * the token: it tries once more, and a refusal then says `needs_reauth` with that reason.
 */
export async function refreshCredential(
  deps: RefreshDeps,
  credentialId: string,
  seenVersion: number,
): Promise<RefreshOutcome | undefined> {
  return withAdvisoryLock(deps.pool, { space: REFRESH_LOCKS, name: credentialId }, async (held) => {
    const row = await findSealedCredential(held.db, credentialId);
    if (row === undefined || row.version !== seenVersion || row.spec.refresh === null || row.state !== 'active')
      return undefined;
    const parts = openAll(deps.ring, row);
    if (parts.refresh_token === undefined) return undefined;
    await markRefreshStarted(held.db, credentialId);
    const outcome = await renew(deps.outbound, row.spec.refresh, parts);
    await held.transaction((tx) => settle(deps, tx, row, outcome));
    return outcome;
  });
}

async function settle(deps: RefreshDeps, tx: Queryable, row: SealedCredential, outcome: RefreshOutcome): Promise<void> {
  const wasInterrupted = row.refreshStartedAt !== null;
  switch (outcome.kind) {
    case 'renewed':
      return store(deps, tx, row, outcome);
    case 'refused': {
      const reason = wasInterrupted
        ? `refresh_interrupted: a renewal broke off before its answer was stored, and the old refresh token is refused (${outcome.error})`
        : `refresh_refused: the token endpoint answered ${outcome.error}`;
      await setNeedsReauth(tx, row.id, reason);
      return audit(tx, row, 'credential.needs_reauth', { reason });
    }
    case 'failed':
      return audit(tx, row, 'credential.refresh_failed', { status: outcome.answer.status });
    case 'unreachable':
      // The mark stays when the token may have arrived.
      if (!outcome.isSent && !wasInterrupted) await clearRefreshStarted(tx, row.id);
      return audit(tx, row, 'credential.refresh_failed', { reason: outcome.reason });
  }
}

/** Of parts that somebody replaced by hand meanwhile, theirs stay. */
async function store(
  deps: RefreshDeps,
  tx: Queryable,
  before: SealedCredential,
  renewed: Extract<RefreshOutcome, { kind: 'renewed' }>,
): Promise<void> {
  if ((await lockCredential(tx, before.id)) === undefined) return;
  const now = await findSealedCredential(tx, before.id);
  if (now === undefined) return;
  const isSame = (part: SecretPart): boolean => now.spec.parts[part] === before.spec.parts[part];
  const parts: SecretParts = openAll(deps.ring, now);
  if (isSame('access_token')) parts.access_token = renewed.accessToken;
  if (isSame('refresh_token') && renewed.refreshToken !== null) parts.refresh_token = renewed.refreshToken;
  const version = now.version + 1;
  const expiresAt = renewed.expiresInMs === null ? null : new Date(deps.clock.nowMs() + renewed.expiresInMs);
  await replaceVersion(tx, now.id, {
    version,
    value: sealParts(deps.ring, { ...placeOf(now), version }, parts),
    secretRef: null,
    expiresAt: isSame('access_token') ? expiresAt : now.expiresAt,
    createdBy: ACTOR,
    spec: { ...now.spec, parts: allIn(parts, version) },
  });
  await audit(tx, now, 'credential.refresh', {
    version,
    rotated: renewed.refreshToken !== null,
    after_interruption: before.refreshStartedAt !== null,
  });
}

function allIn(parts: SecretParts, version: number): CredentialSpec['parts'] {
  return Object.fromEntries(Object.keys(parts).map((part) => [part, version]));
}

function audit(tx: Queryable, row: SealedCredential, action: string, details: Record<string, unknown>): Promise<void> {
  const { teamId, vaultId, name, id } = row;
  return insertAudit(tx, {
    teamId,
    actor: ACTOR,
    action,
    resource: id,
    details: { vault_id: vaultId, name, ...details },
  });
}
