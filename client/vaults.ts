import type { z } from 'zod';
import type {
  CredentialResource,
  CredentialValidation,
  credentialCreate,
  credentialUpdate,
  VaultBindingResource,
  vaultBindingCreate,
  vaultCreate,
  VaultResource,
  vaultUpdate,
} from '../contracts/vaults.ts';
import type { Http, Query } from './http.ts';
import { type Deleted, type Paged, pathsOf } from './paths.ts';

/** Vaults, the credentials in them, and whom they are bound to. */
export function vaultsOf(http: Http) {
  const at = pathsOf('vaults');
  return {
    create: (body: z.input<typeof vaultCreate>) => http.post<VaultResource>('/v1/vaults', body),
    get: (id: string) => http.get<VaultResource>(at(id)),
    list: (query: Query = {}) => http.get<Paged<VaultResource>>('/v1/vaults', query),
    update: (id: string, body: z.input<typeof vaultUpdate>) => http.post<VaultResource>(at(id), body),
    archive: (id: string) => http.post<VaultResource>(at(id, '/archive')),
    delete: (id: string) => http.delete<Deleted>(at(id)),
    credentials: credentialsOf(http),
    bindings: {
      create: (vaultId: string, body: z.input<typeof vaultBindingCreate>) =>
        http.post<VaultBindingResource>(at(vaultId, '/bindings'), body),
      list: (vaultId: string) => http.get<Paged<VaultBindingResource>>(at(vaultId, '/bindings')),
      delete: (vaultId: string, id: string) => http.delete<Deleted>(at(vaultId, `/bindings/${encodeURIComponent(id)}`)),
    },
  };
}

function credentialsOf(http: Http) {
  const of = pathsOf('vaults');
  const all = (vaultId: string): string => of(vaultId, '/credentials');
  const at = (vaultId: string, id: string, rest = ''): string => `${all(vaultId)}/${encodeURIComponent(id)}${rest}`;
  return {
    create: (vaultId: string, body: z.input<typeof credentialCreate>) =>
      http.post<CredentialResource>(all(vaultId), body),
    get: (vaultId: string, id: string) => http.get<CredentialResource>(at(vaultId, id)),
    list: (vaultId: string, query: Query = {}) => http.get<Paged<CredentialResource>>(all(vaultId), query),
    update: (vaultId: string, id: string, body: z.input<typeof credentialUpdate>) =>
      http.post<CredentialResource>(at(vaultId, id), body),
    archive: (vaultId: string, id: string) => http.post<CredentialResource>(at(vaultId, id, '/archive')),
    delete: (vaultId: string, id: string) => http.delete<Deleted>(at(vaultId, id)),
    /** Tries an OAuth credential at its server. */
    validate: (vaultId: string, id: string) => http.post<CredentialValidation>(at(vaultId, id, '/mcp_oauth_validate')),
  };
}
