import { LonghaulError } from '../../contracts/error-codes.ts';
import { credentialPath, credentialValidation, type CredentialValidation } from '../../contracts/vaults.ts';
import { insertAudit } from '../../db/queries/audit.ts';
import { getCredential, type CredentialRow } from '../../db/queries/credentials.ts';
import { actorOf } from '../actor.ts';
import { endpoint } from '../endpoint.ts';
import type { Services } from '../services.ts';

export const validateCredential = endpoint({
  method: 'post',
  path: '/v1/vaults/{vault_id}/credentials/{credential_id}/mcp_oauth_validate',
  tag: 'Vaults',
  summary: 'Try an OAuth credential at its MCP server; a token that is refused is renewed and tried again',
  params: credentialPath,
  response: credentialValidation,
  async handle({ db, principal, services }, { params }) {
    const place = { teamId: principal.teamId, vaultId: params.vault_id, id: params.credential_id };
    const row = await getCredential(db, place);
    if (row.kind !== 'mcp_oauth')
      throw new LonghaulError('invalid_request', `a ${row.kind} credential cannot be tried`);
    if (row.archivedAt !== null) throw new LonghaulError('archived', `credential ${row.id} is archived`);
    const validation = await ask(services, row);
    await insertAudit(db, {
      teamId: row.teamId,
      actor: actorOf(principal),
      action: 'credential.validate',
      resource: row.id,
      decision: validation.status,
      details: { vault_id: row.vaultId, name: row.name },
    });
    return { ...validation, type: 'vault_credential_validation' as const };
  },
});

/** The token is the broker's to open; without it nothing is known. */
async function ask(services: Services, row: CredentialRow): Promise<Omit<CredentialValidation, 'type'>> {
  try {
    if (services.egress !== null) return await services.egress.validateCredential(row.id);
  } catch (error) {
    services.logger.warn({ err: error, credentialId: row.id }, 'the broker did not try a credential');
  }
  return {
    credential_id: row.id,
    vault_id: row.vaultId,
    status: 'unknown',
    has_refresh_token: row.spec.parts.refresh_token !== undefined,
    mcp_probe: { method: 'initialize', http_response: null },
    refresh: null,
    validated_at: new Date().toISOString(),
  };
}
