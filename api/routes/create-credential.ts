import { LonghaulError } from '../../contracts/error-codes.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { credential, credentialCreate, vaultPath } from '../../contracts/vaults.ts';
import type { Queryable } from '../../db/pool.ts';
import { countCredentials, insertCredential, newCredentialId } from '../../db/queries/credentials.ts';
import { sealParts } from '../../vault/seal.ts';
import { learnShape, plainShape } from '../../vault/shape.ts';
import { draftOf, type CredentialDraft } from '../credential-auth.ts';
import { endpoint } from '../endpoint.ts';
import { renderCredential } from '../render/vaults.ts';
import { auditCredential, auditUnrestricted, partsAfter, requireLiveVault } from '../vaults.ts';

export const createCredential = endpoint({
  method: 'post',
  path: '/v1/vaults/{vault_id}/credentials',
  tag: 'Vaults',
  summary: 'Add a credential; its value is never shown again',
  params: vaultPath,
  body: credentialCreate,
  response: credential,
  holdsSecrets: true,
  async handle({ db, principal, services }, { params, body }) {
    const vault = await requireLiveVault(db, principal.teamId, params.vault_id);
    const draft = draftOf(body.auth);
    await requireRoom(db, vault.id, draft);
    const id = newCredentialId();
    const place = { teamId: vault.teamId, vaultId: vault.id, credentialId: id, version: 1 };
    const isSealed = Object.keys(draft.secret).length > 0;
    const row = await insertCredential(db, {
      id,
      teamId: vault.teamId,
      vaultId: vault.id,
      kind: draft.kind,
      name: draft.name,
      displayName: body.display_name ?? null,
      metadata: body.metadata ?? {},
      spec: { ...draft.spec, parts: partsAfter({}, draft.secret, 1) },
      shape: shapeOf(draft),
      version: {
        value: isSealed ? sealParts(services.vaultKeys, place, draft.secret) : null,
        secretRef: draft.secretRef,
        expiresAt: draft.expiresAt,
        createdBy: principal.userId,
      },
    });
    await auditCredential(db, principal, 'create', row);
    await auditUnrestricted(db, principal, row);
    return renderCredential(row);
  },
});

async function requireRoom(db: Queryable, vaultId: string, { kind, name }: CredentialDraft): Promise<void> {
  const { count, isNameTaken } = await countCredentials(db, vaultId, { kind, name });
  if (isNameTaken) throw new LonghaulError('already_exists', `the vault has a ${kind} credential for ${name} already`);
  if (count >= LIMITS.credentialsPerVault) {
    throw new LonghaulError('limit_reached', `a vault holds at most ${LIMITS.credentialsPerVault} credentials`);
  }
}

function shapeOf(draft: CredentialDraft): ReturnType<typeof learnShape> {
  const value = draft.secret.value ?? draft.secret.access_token;
  if (draft.placeholderPrefix !== null) return plainShape(draft.placeholderPrefix);
  return value === undefined ? plainShape('') : learnShape(value);
}
