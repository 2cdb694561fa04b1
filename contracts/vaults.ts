import { z } from 'zod';
import { isReservedVariable, SECRET_REF, TOKEN_ENDPOINT_AUTHS } from './credentials.ts';
import { metadata, metadataPatch, time } from './fields.ts';
import { canonicalHost, isPathGlob } from './hosts.ts';
import { LIMITS } from './limits.ts';
import { hostPattern, methods as methodList } from './networking.ts';
import { boolParam, idParam, pageOf, pageParams, timeParam } from './paging.ts';

const displayName = z.string().trim().min(1).max(LIMITS.vaultNameChars);
const OURS = { description: 'Longhaul’s own' };

export const vaultCreate = z
  .strictObject({ display_name: displayName, metadata: metadata.optional() })
  .meta({ id: 'VaultCreate' });
export const vaultUpdate = z
  .strictObject({ display_name: displayName.nullish(), metadata: metadataPatch })
  .meta({ id: 'VaultUpdate' });
export const vault = z
  .object({
    id: z.string(),
    type: z.literal('vault'),
    display_name: z.string(),
    metadata,
    created_at: time,
    updated_at: time,
    archived_at: time.nullable(),
  })
  .meta({ id: 'Vault' });
export type VaultResource = z.infer<typeof vault>;
export const vaultPath = z.object({ vault_id: z.string() });
export const vaultListQuery = z.strictObject({ ...pageParams, include_archived: boolParam.optional() });
export const vaultDeleted = z.object({ id: z.string(), type: z.literal('vault_deleted') });

/** Shorter values could not be told from ordinary text, so they could not be taken out of it. */
const SHORTEST = { error: 'must have at least 8 characters' };
/** One line that any header can carry. */
const secretLine = z
  .string()
  .min(8, SHORTEST)
  .max(LIMITS.secretValueBytes)
  .regex(/^[!-~](?:[ -~]*[!-~])?$/, 'must be one line of printable ASCII without spaces around it')
  .meta({ format: 'password', writeOnly: true });
/** A private key has several lines. */
const secretText = z
  .string()
  .min(8, SHORTEST)
  .max(LIMITS.secretValueBytes)
  .meta({ format: 'password', writeOnly: true });
const secretRef = z
  .string()
  .max(LIMITS.secretRefChars)
  .regex(SECRET_REF, 'must be vault://<back end>/<path>#<field>, with a back end of env, file, hashicorp or infisical')
  .meta({
    description: 'Longhaul’s own: where the value lies, in place of the value',
    example: 'vault://hashicorp/team/github#token',
  });

const networkingParam = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('unrestricted') }),
  z.strictObject({
    type: z.literal('limited'),
    allowed_hosts: z
      .array(hostPattern)
      .min(1, 'must name at least one host; unrestricted has to be said')
      .max(LIMITS.credentialHosts)
      .refine((hosts) => hosts.every((host) => !host.includes(':')), 'must hold no IPv6 address'),
  }),
]);
export type CredentialNetworkingParam = z.infer<typeof networkingParam>;
const locationParam = z
  .strictObject({
    header: z.boolean().optional(),
    body: z.boolean().optional(),
    basic: z
      .boolean()
      .optional()
      .meta({ description: 'Longhaul’s own: inside Basic authorization; as `header` unless said' }),
    query: z.boolean().optional().meta(OURS),
  })
  .meta({ description: 'Absent: header and basic' });
export type LocationParam = z.infer<typeof locationParam>;
const headerName = z
  .string()
  .max(128)
  .regex(/^[A-Za-z0-9!#$%&'*+.^_`|~-]+$/, 'must be the name of a header')
  .transform((name) => name.toLowerCase());
const secretName = z
  .string()
  .max(LIMITS.secretNameChars)
  .regex(/^[A-Za-z_][A-Za-z0-9_]*$/, 'must be the name of a variable')
  .refine((name) => !isReservedVariable(name), 'is a variable that programs act on');
const username = z
  .string()
  .min(1)
  .max(128)
  .regex(/^[!-9;-~]+$/, 'must be printable ASCII without colon or space');
const placeholderPrefix = z.string().regex(/^[A-Za-z0-9_.-]{0,24}$/, 'must be at most 24 letters, digits, _ . or -');
/** A path as it is, or all that begin with what stands before a `*` at the end. */
const pathList = z
  .array(
    z
      .string()
      .max(1_024)
      .refine(
        (path) => isPathGlob(path) && !path.slice(0, -1).includes('*'),
        'must begin with / and hold no query, .., backslash or percent sign; * only at its end',
      ),
  )
  .min(1)
  .max(100);
/** What requests may carry the value, beside hosts and locations. */
const rules = { methods: methodList.nullish().meta(OURS), paths: pathList.nullish().meta(OURS) };

const SECURE = 'must be an https URL without user, password or fragment; http on loopback only';
/** The URL in the form in which it is compared. */
export const serverUrl = z
  .string()
  .max(2_048)
  .transform((text, context) => {
    const url = URL.canParse(text) ? new URL(text) : undefined;
    const host = url === undefined ? undefined : canonicalHost(url.hostname);
    const isLoopback = host !== undefined && /^(?:localhost|127(?:\.\d+){3})$/.test(host);
    const isSecure = url?.protocol === 'https:' || (url?.protocol === 'http:' && isLoopback);
    if (url !== undefined && isSecure && host !== undefined && !host.includes(':') && !/[@#]/.test(text))
      return url.href;
    context.addIssue({ code: 'custom', message: SECURE });
    return z.NEVER;
  });

const future = timeParam.refine((text) => Date.parse(text) > Date.now(), 'must be in the future');
const clientAuthCreate = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('none') }),
  z.strictObject({ type: z.literal('client_secret_basic'), client_secret: secretLine }),
  z.strictObject({ type: z.literal('client_secret_post'), client_secret: secretLine }),
]);
const oauthText = z.string().min(1).max(2_048);
const refreshCreate = z.strictObject({
  client_id: oauthText,
  refresh_token: secretLine,
  token_endpoint: serverUrl,
  token_endpoint_auth: clientAuthCreate,
  resource: oauthText.nullish(),
  scope: oauthText.nullish(),
});

const environmentVariableCreate = z.strictObject({
  type: z.literal('environment_variable'),
  secret_name: secretName,
  secret_value: secretLine.optional(),
  secret_ref: secretRef.optional(),
  networking: networkingParam,
  injection_location: locationParam.optional(),
  header_name: headerName.nullish().meta(OURS),
  placeholder_prefix: placeholderPrefix.optional().meta(OURS),
  ...rules,
});
const staticBearerCreate = z.strictObject({
  type: z.literal('static_bearer'),
  mcp_server_url: serverUrl,
  token: secretLine.optional(),
  secret_ref: secretRef.optional(),
});
const mcpOauthCreate = z.strictObject({
  type: z.literal('mcp_oauth'),
  mcp_server_url: serverUrl,
  access_token: secretLine,
  expires_at: future.nullish(),
  refresh: refreshCreate.nullish(),
});
const gitCreate = z
  .strictObject({
    type: z.literal('git'),
    username: username.optional(),
    password: secretLine.optional(),
    secret_ref: secretRef.optional(),
    secret_name: secretName.nullish(),
    networking: networkingParam,
    ...rules,
  })
  .meta(OURS);
const sshCreate = z
  .strictObject({
    type: z.literal('ssh'),
    username: username.optional(),
    private_key: secretText.optional(),
    passphrase: secretText.optional(),
    secret_ref: secretRef.optional(),
    networking: networkingParam,
  })
  .meta(OURS);

const authCreate = z.discriminatedUnion('type', [
  environmentVariableCreate,
  staticBearerCreate,
  mcpOauthCreate,
  gitCreate,
  sshCreate,
]);
export type AuthCreate = z.infer<typeof authCreate>;
export const credentialCreate = z
  .strictObject({ auth: authCreate, display_name: displayName.nullish(), metadata: metadata.optional() })
  .meta({ id: 'VaultCredentialCreate' });

/** The type decides nothing but which fields there are: what is stored keeps its own. */
const clientAuthUpdate = z.strictObject({
  type: z.enum(['client_secret_basic', 'client_secret_post']),
  client_secret: secretLine.nullish(),
});
const authUpdate = z.discriminatedUnion('type', [
  z.strictObject({
    type: z.literal('environment_variable'),
    secret_value: secretLine.nullish(),
    secret_ref: secretRef.nullish(),
    networking: networkingParam.nullish(),
    injection_location: locationParam.optional(),
    header_name: headerName.nullish().meta(OURS),
    ...rules,
  }),
  z.strictObject({
    type: z.literal('static_bearer'),
    token: secretLine.nullish(),
    secret_ref: secretRef.nullish(),
  }),
  z.strictObject({
    type: z.literal('mcp_oauth'),
    access_token: secretLine.nullish(),
    expires_at: future.nullish(),
    refresh: z
      .strictObject({
        refresh_token: secretLine.nullish(),
        scope: z.string().max(2_048).nullish(),
        token_endpoint_auth: clientAuthUpdate.optional(),
      })
      .nullish(),
  }),
  z.strictObject({
    type: z.literal('git'),
    username: username.nullish(),
    password: secretLine.nullish(),
    secret_ref: secretRef.nullish(),
    networking: networkingParam.nullish(),
    ...rules,
  }),
  z.strictObject({
    type: z.literal('ssh'),
    username: username.nullish(),
    private_key: secretText.nullish(),
    passphrase: secretText.nullish(),
    secret_ref: secretRef.nullish(),
    networking: networkingParam.nullish(),
  }),
]);
export type AuthUpdate = z.infer<typeof authUpdate>;
export const credentialUpdate = z
  .strictObject({ auth: authUpdate.optional(), display_name: displayName.nullish(), metadata: metadataPatch })
  .meta({ id: 'VaultCredentialUpdate' });

const networking = z.discriminatedUnion('type', [
  z.object({ type: z.literal('unrestricted') }),
  z.object({ type: z.literal('limited'), allowed_hosts: z.array(z.string()) }),
]);
const shownRules = {
  methods: z.array(z.string()).nullable().meta(OURS),
  paths: z.array(z.string()).nullable().meta(OURS),
  secret_ref: z.string().nullable().meta(OURS),
};
const auth = z.discriminatedUnion('type', [
  z.object({
    type: z.literal('environment_variable'),
    secret_name: z.string(),
    networking,
    injection_location: z.object({
      header: z.boolean(),
      body: z.boolean(),
      basic: z.boolean().meta(OURS),
      query: z.boolean().meta(OURS),
    }),
    header_name: z.string().nullable().meta(OURS),
    ...shownRules,
  }),
  z.object({ type: z.literal('static_bearer'), mcp_server_url: z.string(), secret_ref: shownRules.secret_ref }),
  z.object({
    type: z.literal('mcp_oauth'),
    mcp_server_url: z.string(),
    expires_at: time.nullable(),
    refresh: z
      .object({
        client_id: z.string(),
        token_endpoint: z.string(),
        token_endpoint_auth: z.object({ type: z.enum(TOKEN_ENDPOINT_AUTHS) }),
        resource: z.string().nullable(),
        scope: z.string().nullable(),
      })
      .nullable(),
  }),
  z.object({
    type: z.literal('git'),
    username: z.string().nullable(),
    secret_name: z.string().nullable(),
    networking,
    ...shownRules,
  }),
  z.object({
    type: z.literal('ssh'),
    username: z.string().nullable(),
    networking,
    secret_ref: shownRules.secret_ref,
  }),
]);
export const credential = z
  .object({
    id: z.string(),
    type: z.literal('vault_credential'),
    vault_id: z.string(),
    display_name: z.string().nullable(),
    auth,
    metadata,
    version: z.number().int().meta({ description: 'Longhaul’s own: grows with each new value' }),
    state: z.enum(['active', 'needs_reauth']).meta(OURS),
    state_reason: z.string().nullable().meta(OURS),
    created_at: time,
    updated_at: time,
    archived_at: time.nullable(),
  })
  .meta({ id: 'VaultCredential', description: 'Never holds the secret' });
export type CredentialResource = z.infer<typeof credential>;
export const credentialPath = z.object({ vault_id: z.string(), credential_id: z.string() });
export const credentialDeleted = z.object({ id: z.string(), type: z.literal('vault_credential_deleted') });

const httpResponse = z.object({
  body: z.string(),
  body_truncated: z.boolean(),
  content_type: z.string(),
  status_code: z.number().int(),
});
export const credentialValidation = z
  .object({
    type: z.literal('vault_credential_validation'),
    credential_id: z.string(),
    vault_id: z.string(),
    status: z.enum(['valid', 'invalid', 'unknown']),
    has_refresh_token: z.boolean(),
    mcp_probe: z.object({ method: z.string(), http_response: httpResponse.nullable() }).nullable(),
    refresh: z
      .object({
        status: z.enum(['succeeded', 'failed', 'connect_error', 'no_refresh_token']),
        http_response: httpResponse.nullable(),
      })
      .nullable(),
    validated_at: time,
  })
  .meta({ id: 'VaultCredentialValidation' });
export type CredentialValidation = z.infer<typeof credentialValidation>;

const target = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('agent'), id: idParam }),
  z.strictObject({ type: z.literal('deployment'), id: idParam }),
  z.strictObject({ type: z.literal('user'), id: z.string().min(1).max(256) }),
  z.strictObject({ type: z.literal('team') }),
]);
export const vaultBindingCreate = z.strictObject({ target }).meta({ id: 'VaultBindingCreate' });
export const vaultBinding = z
  .object({
    id: z.string(),
    type: z.literal('vault_binding'),
    vault_id: z.string(),
    target: z.object({ type: z.enum(['agent', 'deployment', 'user', 'team']), id: z.string() }),
    created_at: time,
  })
  .meta({ id: 'VaultBinding' });
export type VaultBindingResource = z.infer<typeof vaultBinding>;
export const vaultBindingPath = z.object({ vault_id: z.string(), binding_id: z.string() });
export const vaultBindingDeleted = z.object({ id: z.string(), type: z.literal('vault_binding_deleted') });
export const vaultBindings = pageOf(vaultBinding);
