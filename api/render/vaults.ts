import type { CredentialSpec } from '../../contracts/credentials.ts';
import type { CredentialResource, VaultBindingResource, VaultResource } from '../../contracts/vaults.ts';
import type { CredentialRow } from '../../db/queries/credentials.ts';
import type { VaultBindingRow } from '../../db/queries/vault-bindings.ts';
import type { VaultRow } from '../../db/queries/vaults.ts';
import { isoOrNull } from './times.ts';

export function renderVault(row: VaultRow): VaultResource {
  return {
    id: row.id,
    type: 'vault',
    display_name: row.displayName,
    metadata: row.metadata,
    created_at: row.createdAt.toISOString(),
    updated_at: row.updatedAt.toISOString(),
    archived_at: isoOrNull(row.archivedAt),
  };
}

/** From rows that never held the value. */
export function renderCredential(row: CredentialRow): CredentialResource {
  return {
    id: row.id,
    type: 'vault_credential',
    vault_id: row.vaultId,
    display_name: row.displayName,
    auth: renderAuth(row),
    metadata: row.metadata,
    version: row.currentVersion,
    state: row.state,
    state_reason: row.stateReason,
    created_at: row.createdAt.toISOString(),
    updated_at: row.updatedAt.toISOString(),
    archived_at: isoOrNull(row.archivedAt),
  };
}

function renderAuth(row: CredentialRow): CredentialResource['auth'] {
  const { spec, secretRef } = row;
  const rules = { methods: spec.methods, paths: spec.paths, secret_ref: secretRef };
  const networking = renderNetworking(spec);
  switch (row.kind) {
    case 'environment_variable': {
      const has = (location: CredentialSpec['locations'][number]): boolean => spec.locations.includes(location);
      return {
        type: row.kind,
        secret_name: row.name,
        networking,
        injection_location: { header: has('header'), body: has('body'), basic: has('basic'), query: has('query') },
        header_name: spec.headerName,
        ...rules,
      };
    }
    case 'static_bearer':
      return { type: row.kind, mcp_server_url: spec.mcpServerUrl ?? '', secret_ref: secretRef };
    case 'mcp_oauth':
      return {
        type: row.kind,
        mcp_server_url: spec.mcpServerUrl ?? '',
        expires_at: isoOrNull(row.expiresAt),
        refresh:
          spec.refresh === null
            ? null
            : {
                client_id: spec.refresh.clientId,
                token_endpoint: spec.refresh.tokenEndpoint,
                token_endpoint_auth: { type: spec.refresh.tokenEndpointAuth },
                resource: spec.refresh.resource,
                scope: spec.refresh.scope,
              },
      };
    case 'git':
      return { type: row.kind, username: spec.username, secret_name: spec.env, networking, ...rules };
    case 'ssh':
      return { type: row.kind, username: spec.username, networking, secret_ref: secretRef };
  }
}

function renderNetworking(
  spec: CredentialSpec,
): { type: 'unrestricted' } | { type: 'limited'; allowed_hosts: string[] } {
  return spec.unrestricted ? { type: 'unrestricted' } : { type: 'limited', allowed_hosts: spec.hosts };
}

export function renderBinding(row: VaultBindingRow): VaultBindingResource {
  return {
    id: row.id,
    type: 'vault_binding',
    vault_id: row.vaultId,
    target: { type: row.targetType, id: row.targetId },
    created_at: row.createdAt.toISOString(),
  };
}
