import { vault, vaultCreate } from '../../contracts/vaults.ts';
import { insertVault } from '../../db/queries/vaults.ts';
import { endpoint } from '../endpoint.ts';
import { renderVault } from '../render/vaults.ts';
import { auditVault } from '../vaults.ts';

export const createVault = endpoint({
  method: 'post',
  path: '/v1/vaults',
  tag: 'Vaults',
  summary: 'Create a vault: credentials that sessions get together',
  body: vaultCreate,
  response: vault,
  async handle({ db, principal }, { body }) {
    const owner = { teamId: principal.teamId, createdBy: principal.userId };
    const row = await insertVault(db, owner, { displayName: body.display_name, metadata: body.metadata ?? {} });
    await auditVault(db, principal, 'create', row);
    return renderVault(row);
  },
});
