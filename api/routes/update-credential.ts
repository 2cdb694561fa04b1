import { LonghaulError } from '../../contracts/error-codes.ts';
import { credential, credentialPath, credentialUpdate } from '../../contracts/vaults.ts';
import {
  getCredential,
  replaceVersion,
  setExpiry,
  updateCredential as saveCredential,
  type CredentialRow,
} from '../../db/queries/credentials.ts';
import { syncSessionRules } from '../../db/queries/session-credentials.ts';
import { sealParts } from '../../vault/seal.ts';
import { learnShape } from '../../vault/shape.ts';
import { editOf, type CredentialEdit } from '../credential-edit.ts';
import { patchMetadata } from '../definitions.ts';
import { endpoint, type Context } from '../endpoint.ts';
import { renderCredential } from '../render/vaults.ts';
import { auditCredential, auditUnrestricted, partsAfter, requireLiveVault } from '../vaults.ts';

export const updateCredential = endpoint({
  method: 'post',
  path: '/v1/vaults/{vault_id}/credentials/{credential_id}',
  tag: 'Vaults',
  summary: 'Give a new value or new rules; running sessions use them from now on',
  params: credentialPath,
  body: credentialUpdate,
  response: credential,
  holdsSecrets: true,
  async handle(context, { params, body }) {
    const { db, principal } = context;
    const vault = await requireLiveVault(db, principal.teamId, params.vault_id);
    const place = { teamId: vault.teamId, vaultId: vault.id, id: params.credential_id };
    const before = await getCredential(db, place, { lock: true });
    if (before.archivedAt !== null) throw new LonghaulError('archived', `credential ${before.id} is archived`);
    const edit = body.auth === undefined ? { spec: before.spec, secret: {} } : editOf(before, body.auth);
    await saveCredential(db, before.id, {
      displayName: body.display_name ?? before.displayName,
      metadata: patchMetadata(before.metadata, body.metadata),
      spec: edit.spec,
      shape: before.shape,
    });
    const isRotated = await rotate(context, before, edit);
    if (!isRotated && edit.expiresAt !== undefined) await setExpiry(db, before, edit.expiresAt);
    await syncSessionRules(db, before.id, edit.spec);
    const row = await getCredential(db, place);
    await auditCredential(db, principal, isRotated ? 'rotate' : 'update', row);
    if (!before.spec.unrestricted) await auditUnrestricted(db, principal, row);
    return renderCredential(row);
  },
});

/** Writes the next version when the edit brings one. */
async function rotate(
  { db, principal, services }: Context,
  before: CredentialRow,
  edit: CredentialEdit,
): Promise<boolean> {
  const { secret } = edit;
  const isSealed = Object.keys(secret).length > 0;
  if (!isSealed && edit.secretRef === undefined) return false;
  const version = before.currentVersion + 1;
  const { teamId, vaultId, id } = before;
  const value = isSealed ? sealParts(services.vaultKeys, { teamId, vaultId, credentialId: id, version }, secret) : null;
  const secretRef = edit.secretRef === undefined ? before.secretRef : edit.secretRef;
  // A reference takes the place of every part that was sealed.
  const parts =
    typeof edit.secretRef === 'string'
      ? partsAfter({}, secret, version)
      : partsAfter(before.spec.parts, secret, version);
  const shown = secret.value ?? secret.access_token;
  await replaceVersion(db, id, {
    version,
    value,
    secretRef,
    spec: { ...edit.spec, parts },
    expiresAt: edit.expiresAt ?? before.expiresAt,
    createdBy: principal.userId,
    ...(shown === undefined ? {} : { shape: learnShape(shown) }),
  });
  return true;
}
