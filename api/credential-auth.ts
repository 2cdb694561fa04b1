import type { CredentialKind, CredentialSpec, InjectionLocation, SecretParts } from '../contracts/credentials.ts';
import { LonghaulError } from '../contracts/error-codes.ts';
import { canonicalHost } from '../contracts/hosts.ts';
import type { AuthCreate, CredentialNetworkingParam, LocationParam } from '../contracts/vaults.ts';

/** A credential as a request describes it: what is stored in the clear, and apart from it what is sealed. */
export interface CredentialDraft {
  kind: CredentialKind;
  /** What it is found by within its vault. */
  name: string;
  spec: Omit<CredentialSpec, 'parts'>;
  secret: SecretParts;
  secretRef: string | null;
  expiresAt: Date | null;
  /** Of placeholders, where no value shows it. */
  placeholderPrefix: string | null;
}

const NO_RULES = {
  env: null,
  headerName: null,
  template: null,
  username: null,
  methods: null,
  paths: null,
  mcpServerUrl: null,
  refresh: null,
};

/** Reads a new credential's `auth`. */
export function draftOf(auth: AuthCreate): CredentialDraft {
  const shared = { kind: auth.type, expiresAt: null, placeholderPrefix: null };
  switch (auth.type) {
    case 'environment_variable': {
      const spec = {
        ...NO_RULES,
        ...networkingOf(auth.networking),
        env: auth.secret_name,
        locations: locationsOf(auth.injection_location, ['header', 'basic']),
        headerName: auth.header_name ?? null,
        methods: auth.methods ?? null,
        paths: auth.paths ?? null,
      };
      const held = valueOrRef('secret_value', auth.secret_value, auth.secret_ref);
      return { ...shared, ...held, name: auth.secret_name, spec, placeholderPrefix: auth.placeholder_prefix ?? null };
    }
    case 'static_bearer': {
      const held = valueOrRef('token', auth.token, auth.secret_ref);
      return { ...shared, ...held, name: auth.mcp_server_url, spec: bearerSpec(auth.mcp_server_url) };
    }
    case 'mcp_oauth':
      return { ...shared, ...oauthDraft(auth) };
    case 'git': {
      const username = auth.username ?? 'x-access-token';
      const spec = {
        ...NO_RULES,
        ...networkingOf(auth.networking),
        env: auth.secret_name ?? null,
        locations: ['header', 'basic'] as InjectionLocation[],
        headerName: 'authorization',
        username,
        methods: auth.methods ?? null,
        paths: auth.paths ?? null,
      };
      const held = valueOrRef('password', auth.password, auth.secret_ref);
      return { ...shared, ...held, name: nameOfHosts(spec.hosts), spec };
    }
    case 'ssh': {
      const username = auth.username ?? 'git';
      const spec = { ...NO_RULES, ...networkingOf(auth.networking), locations: [], username };
      const held = valueOrRef('private_key', auth.private_key, auth.secret_ref);
      const passphrase = auth.passphrase === undefined ? {} : { passphrase: auth.passphrase };
      return { ...shared, ...held, secret: { ...held.secret, ...passphrase }, name: nameOfHosts(spec.hosts), spec };
    }
  }
}

function oauthDraft(
  auth: Extract<AuthCreate, { type: 'mcp_oauth' }>,
): Omit<CredentialDraft, 'kind' | 'placeholderPrefix'> {
  const { refresh } = auth;
  const clientAuth = refresh?.token_endpoint_auth;
  return {
    name: auth.mcp_server_url,
    spec: {
      ...bearerSpec(auth.mcp_server_url),
      refresh:
        refresh === null || refresh === undefined
          ? null
          : {
              clientId: refresh.client_id,
              tokenEndpoint: refresh.token_endpoint,
              tokenEndpointAuth: refresh.token_endpoint_auth.type,
              resource: refresh.resource ?? null,
              scope: refresh.scope ?? null,
            },
    },
    secret: {
      access_token: auth.access_token,
      ...(refresh === null || refresh === undefined ? {} : { refresh_token: refresh.refresh_token }),
      ...(clientAuth === undefined || clientAuth.type === 'none' ? {} : { client_secret: clientAuth.client_secret }),
    },
    secretRef: null,
    expiresAt: auth.expires_at === null || auth.expires_at === undefined ? null : new Date(auth.expires_at),
  };
}

/** A token for an MCP server goes to that server only, in one header, and the sandbox need not send it. */
function bearerSpec(url: string): Omit<CredentialSpec, 'parts'> {
  return {
    ...NO_RULES,
    hosts: [canonicalHost(new URL(url).hostname) ?? ''],
    unrestricted: false,
    locations: ['header'],
    headerName: 'authorization',
    template: 'Bearer {value}',
    mcpServerUrl: url,
  };
}

/** Hosts as they are stored. */
export function networkingOf(param: CredentialNetworkingParam): Pick<CredentialSpec, 'hosts' | 'unrestricted'> {
  if (param.type === 'unrestricted') return { hosts: [], unrestricted: true };
  return { hosts: [...new Set(param.allowed_hosts)], unrestricted: false };
}

/** What is not said stays as it was; Basic is a header, so it follows `header` until it is said. */
export function locationsOf(
  param: LocationParam | undefined,
  before: readonly InjectionLocation[],
): InjectionLocation[] {
  const given = { ...param, basic: param?.basic ?? param?.header };
  const all: InjectionLocation[] = ['header', 'basic', 'query', 'body'];
  const after = all.filter((location) => given[location] ?? before.includes(location));
  if (after.length > 0) return after;
  throw new LonghaulError('invalid_request', 'must enable at least one location', { field: 'auth.injection_location' });
}

/** Exactly one of the two; the name of the value's field is the caller's. */
export function valueOrRef(
  field: string,
  value: string | null | undefined,
  ref: string | null | undefined,
): { secret: SecretParts; secretRef: string | null } {
  const [one, other] = [value ?? null, ref ?? null];
  if ((one === null) === (other === null)) {
    const message = one === null ? 'is needed, or secret_ref' : 'cannot go with secret_ref';
    throw new LonghaulError('invalid_request', message, { field: `auth.${field}` });
  }
  return { secret: one === null ? {} : { value: one }, secretRef: other };
}

function nameOfHosts(hosts: readonly string[]): string {
  return hosts.length === 0 ? '*' : hosts.toSorted((a, b) => (a < b ? -1 : 1)).join(' ');
}
