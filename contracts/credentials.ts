/** Zod-free. What a credential is, as it is stored and as the broker and activities read it. */

export const CREDENTIAL_KINDS = ['environment_variable', 'static_bearer', 'mcp_oauth', 'ssh', 'git'] as const;
export type CredentialKind = (typeof CREDENTIAL_KINDS)[number];

/** Where in a request the placeholder may stand. `basic` is the password inside a Basic authorization header. */
export const INJECTION_LOCATIONS = ['header', 'basic', 'query', 'body'] as const;
export type InjectionLocation = (typeof INJECTION_LOCATIONS)[number];

/** `needs_reauth`: the refresh token is used up or refused; a person has to give a new one. */
export type CredentialState = 'active' | 'needs_reauth';

export const TOKEN_ENDPOINT_AUTHS = ['none', 'client_secret_basic', 'client_secret_post'] as const;
export type TokenEndpointAuth = (typeof TOKEN_ENDPOINT_AUTHS)[number];

/** How an access token is renewed; the tokens and the client secret are sealed. */
export interface OAuthRefresh {
  clientId: string;
  tokenEndpoint: string;
  tokenEndpointAuth: TokenEndpointAuth;
  resource: string | null;
  scope: string | null;
}

/** Which requests of a session may carry the value. */
export interface CredentialRules {
  /** Canonical hosts or `*.suffix`; empty only when unrestricted. */
  hosts: string[];
  /** Every host the environment lets the session reach. */
  unrestricted: boolean;
  locations: InjectionLocation[];
  /** The one header it may stand in; null: any. */
  headerName: string | null;
  /** What the broker sets the header to where the sandbox sends none, with `{value}` in it; null: nothing is added. */
  template: string | null;
  /** The user name that goes with a password, for Basic. */
  username: string | null;
  /** null: every method. */
  methods: string[] | null;
  /** Paths, each of which may end with `*`; null: every path. */
  paths: string[] | null;
}

/** `credentials.spec`: all of a credential that is not secret. */
export interface CredentialSpec extends CredentialRules {
  /** The variable that holds the placeholder; null: none. */
  env: string | null;
  mcpServerUrl: string | null;
  refresh: OAuthRefresh | null;
  /** Which version holds each part of the secret: an edit may bring one part only. */
  parts: Partial<Record<SecretPart, number>>;
}

/** `value` is a key, a password or a bearer token. */
export const SECRET_PARTS = ['value', 'access_token', 'refresh_token', 'client_secret', 'passphrase'] as const;
export type SecretPart = (typeof SECRET_PARTS)[number];
/** What is sealed; never stored, shown or logged in the clear. */
export type SecretParts = Partial<Record<SecretPart, string>>;

/** What placeholders look like: a vendor's beginning, and letters that are drawn anew for each. */
export interface PlaceholderShape {
  prefix: string;
  alphabet: PlaceholderAlphabet;
  /** Of the whole placeholder; longer when that is too short to be unguessable. */
  lengthChars: number;
}
/** `jwt`: three parts, of which the first is a JSON Web Token's header. */
export type PlaceholderAlphabet = 'alnum' | 'upper' | 'hex' | 'base64url' | 'jwt';

/** What of a session's credential the broker and the sandbox's environment need. */
export interface SessionCredential extends CredentialRules {
  id: string;
  sessionId: string;
  credentialId: string;
  vaultId: string;
  version: number;
  name: string;
  env: string | null;
  kind: CredentialKind;
  placeholder: string;
  createdAt: Date;
  revokedAt: Date | null;
}

/** `vault://<back end>/<path>#<field>`; a path has no segment that leads elsewhere. */
export const SECRET_REF =
  /^vault:\/\/(?<backend>env|file|hashicorp|infisical)\/(?!\.{1,2}(?:\/|#|$))(?<path>[\w.@ -]+(?:\/(?!\.{1,2}(?:\/|#|$))[\w.@ -]+)*)(?:#(?<field>[\w.-]{1,128}))?$/;
export type BackendName = 'env' | 'file' | 'hashicorp' | 'infisical';

/** Where a value lies in a back end. */
export interface SecretRef {
  backend: BackendName;
  path: string;
  /** null: the only field, or `value`. */
  field: string | null;
}

/** Undefined for what is no reference. */
export function parseSecretRef(text: string): SecretRef | undefined {
  const groups = SECRET_REF.exec(text)?.groups;
  if (groups === undefined) return undefined;
  return { backend: groups['backend'] as BackendName, path: groups['path'] ?? '', field: groups['field'] ?? null };
}

/** A placeholder in one of these would change what programs of the sandbox do, or cut it off from the broker. */
const RESERVED_VARIABLES =
  /^(?:PATH|HOME|USER|SHELL|PWD|TMPDIR|TERM|LANG|LC_.*|IFS|ENV|BASH_ENV|PS4|LD_.*|DYLD_.*|GCONV_PATH|NODE_OPTIONS|NODE_EXTRA_CA_CERTS|PYTHONPATH|PYTHONSTARTUP|PERL5LIB|PERL5OPT|RUBYOPT|RUBYLIB|JAVA_TOOL_OPTIONS|GIT_SSL_.*|GIT_CONFIG.*|SSL_CERT_.*|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|PIP_CERT|NPM_CONFIG_CAFILE|AWS_CA_BUNDLE|DENO_CERT|(?:HTTPS?|ALL|NO)_PROXY)$/i;

export function isReservedVariable(name: string): boolean {
  return RESERVED_VARIABLES.test(name);
}
