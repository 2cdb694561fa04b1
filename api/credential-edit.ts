import type { CredentialSpec, OAuthRefresh, SecretParts } from '../contracts/credentials.ts';
import { LonghaulError } from '../contracts/error-codes.ts';
import type { AuthUpdate } from '../contracts/vaults.ts';
import type { CredentialRow } from '../db/queries/credentials.ts';
import { locationsOf, networkingOf, valueOrRef } from './credential-auth.ts';

/** What an edit changes. */
export interface CredentialEdit {
  spec: CredentialSpec;
  /** New parts of the secret; empty: the version stays. */
  secret: SecretParts;
  /** undefined: the same as before. */
  secretRef?: string | null;
  /** undefined: the same as before. */
  expiresAt?: Date;
}

/** Reads an edit of `auth` against what is stored. */
export function editOf(before: CredentialRow, auth: AuthUpdate): CredentialEdit {
  if (auth.type !== before.kind) {
    const message = `is ${before.kind} and cannot be changed`;
    throw new LonghaulError('invalid_request', message, { field: 'auth.type' });
  }
  const { spec } = before;
  switch (auth.type) {
    case 'environment_variable': {
      const locations = locationsOf(auth.injection_location, spec.locations);
      const headerName = auth.header_name === undefined ? spec.headerName : auth.header_name;
      const edited = { ...spec, ...editedRules(spec, auth), locations, headerName };
      return { spec: edited, ...newValue('secret_value', auth.secret_value, auth.secret_ref) };
    }
    case 'static_bearer':
      return { spec, ...newValue('token', auth.token, auth.secret_ref) };
    case 'mcp_oauth':
      return editedOauth(spec, auth);
    case 'git': {
      const edited = { ...spec, ...editedRules(spec, auth), username: auth.username ?? spec.username };
      return { spec: edited, ...newValue('password', auth.password, auth.secret_ref) };
    }
    case 'ssh': {
      const edited = { ...spec, ...editedRules(spec, auth), username: auth.username ?? spec.username };
      const held = newValue('private_key', auth.private_key, auth.secret_ref);
      const passphrase = auth.passphrase ?? undefined;
      return { spec: edited, ...held, secret: { ...held.secret, ...(passphrase === undefined ? {} : { passphrase }) } };
    }
  }
}

/** Hosts are replaced as a whole; null takes a rule away, absent keeps it. */
function editedRules(
  spec: CredentialSpec,
  auth: Pick<Extract<AuthUpdate, { type: 'git' }>, 'networking' | 'methods' | 'paths'>,
): Pick<CredentialSpec, 'hosts' | 'unrestricted' | 'methods' | 'paths'> {
  const { networking } = auth;
  return {
    ...(networking === null || networking === undefined ? spec : networkingOf(networking)),
    methods: auth.methods === undefined ? spec.methods : auth.methods,
    paths: auth.paths === undefined ? spec.paths : auth.paths,
  };
}

function newValue(
  field: string,
  value: string | null | undefined,
  ref: string | null | undefined,
): Pick<CredentialEdit, 'secret' | 'secretRef'> {
  if ((value ?? ref ?? null) === null) return { secret: {} };
  return valueOrRef(field, value, ref);
}

function editedOauth(spec: CredentialSpec, auth: Extract<AuthUpdate, { type: 'mcp_oauth' }>): CredentialEdit {
  const secret: SecretParts = {};
  if (auth.access_token !== null && auth.access_token !== undefined) secret.access_token = auth.access_token;
  const edit: CredentialEdit = { spec, secret };
  if (auth.expires_at !== null && auth.expires_at !== undefined) edit.expiresAt = new Date(auth.expires_at);
  const { refresh } = auth;
  if (refresh === null || refresh === undefined) return edit;
  if (spec.refresh === null) {
    throw new LonghaulError('invalid_request', 'this credential has no refresh; make a new one', {
      field: 'auth.refresh',
    });
  }
  const scope = refresh.scope ?? spec.refresh.scope;
  edit.spec = { ...spec, refresh: { ...spec.refresh, scope: scope === '' ? null : scope } };
  if (refresh.refresh_token !== null && refresh.refresh_token !== undefined)
    secret.refresh_token = refresh.refresh_token;
  const clientSecret = refresh.token_endpoint_auth?.client_secret;
  if (clientSecret !== null && clientSecret !== undefined) {
    requireSecretClient(spec.refresh);
    secret.client_secret = clientSecret;
  }
  return edit;
}

function requireSecretClient(refresh: OAuthRefresh): void {
  if (refresh.tokenEndpointAuth !== 'none') return;
  throw new LonghaulError('invalid_request', 'this client has no secret', {
    field: 'auth.refresh.token_endpoint_auth.client_secret',
  });
}
