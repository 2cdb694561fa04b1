import type { CredentialSpec, SecretParts } from '../contracts/credentials.ts';
import { LonghaulError } from '../contracts/error-codes.ts';
import type { Queryable } from '../db/pool.ts';
import type { Principal } from '../db/queries/api-keys.ts';
import { insertAudit } from '../db/queries/audit.ts';
import type { CredentialRow } from '../db/queries/credentials.ts';
import { revokeSessionCredentials } from '../db/queries/session-credentials.ts';
import { findVaults, getVault, type VaultRow } from '../db/queries/vaults.ts';
import { actorOf } from './actor.ts';

/** Every id is a vault of the team that is not archived; the first that is not is refused by its place. */
export async function requireVaults(db: Queryable, teamId: string, ids: readonly string[]): Promise<void> {
  const found = await findVaults(db, teamId, ids);
  for (const [index, id] of ids.entries()) {
    const field = `vault_ids[${index}]`;
    const vault = found.get(id);
    if (vault === undefined) throw new LonghaulError('not_found', 'there is no such vault', { field });
    if (vault.isArchived) throw new LonghaulError('archived', `vault ${id} is archived`, { field });
  }
}

/** A vault that may be changed, locked until the transaction ends. */
export async function requireLiveVault(tx: Queryable, teamId: string, id: string): Promise<VaultRow> {
  const row = await getVault(tx, teamId, id, { lock: true });
  if (row.archivedAt !== null) throw new LonghaulError('archived', `vault ${row.id} is archived`);
  return row;
}

/** Names and places only: what is told here is read by more people than the vault. */
export async function auditCredential(
  tx: Queryable,
  principal: Principal,
  verb: 'create' | 'update' | 'rotate' | 'archive' | 'delete',
  row: CredentialRow,
): Promise<void> {
  const { spec } = row;
  await insertAudit(tx, {
    teamId: row.teamId,
    actor: actorOf(principal),
    action: `credential.${verb}`,
    resource: row.id,
    details: {
      vault_id: row.vaultId,
      kind: row.kind,
      name: row.name,
      version: row.currentVersion,
      networking: spec.unrestricted ? 'unrestricted' : spec.hosts,
      locations: spec.locations,
    },
  });
}

export async function auditVault(
  tx: Queryable,
  principal: Principal,
  verb: string,
  row: VaultRow,
  details: Record<string, unknown> = {},
): Promise<void> {
  await insertAudit(tx, {
    teamId: row.teamId,
    actor: actorOf(principal),
    action: `vault.${verb}`,
    resource: row.id,
    details: { name: row.displayName, ...details },
  });
}

/** That a secret may go wherever an environment lets a session is a decision of its own. */
export async function auditUnrestricted(tx: Queryable, principal: Principal, row: CredentialRow): Promise<void> {
  if (!row.spec.unrestricted) return;
  await insertAudit(tx, {
    teamId: row.teamId,
    actor: actorOf(principal),
    action: 'credential.unrestricted',
    resource: row.id,
    decision: 'allow',
    details: { vault_id: row.vaultId, name: row.name },
  });
}

/** Takes credentials from running sessions; brokers hear of it with the commit. */
export async function revokeFromSessions(
  tx: Queryable,
  principal: Principal,
  ended: { ids: readonly string[]; reason: string },
): Promise<void> {
  if (ended.ids.length === 0) return;
  for (const { sessionId, credentialId } of await revokeSessionCredentials(tx, { credentialIds: [...ended.ids] })) {
    await insertAudit(tx, {
      teamId: principal.teamId,
      actor: actorOf(principal),
      action: 'credential.revoke',
      resource: credentialId,
      sessionId,
      details: { reason: ended.reason },
    });
  }
}

/** The version each part is in after `secret` came with `version`. A whole value replaces all that was. */
export function partsAfter(
  before: CredentialSpec['parts'],
  secret: SecretParts,
  version: number,
): CredentialSpec['parts'] {
  const brought = Object.fromEntries(Object.keys(secret).map((part) => [part, version]));
  return 'value' in secret ? brought : { ...before, ...brought };
}
