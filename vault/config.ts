import { readFileSync } from 'node:fs';
import { LonghaulError } from '../contracts/error-codes.ts';
import type { HashicorpAuth, HashicorpConfig } from './backends/hashicorp.ts';
import type { InfisicalConfig } from './backends/infisical.ts';
import { KeyRing } from './key-ring.ts';

type Environment = Record<string, string | undefined>;

/**
 * The master keys of a process that seals or opens: `LONGHAUL_VAULT_KEY`, or the file `LONGHAUL_VAULT_KEY_FILE`. There is
 * no other way to start it, and no key that everybody has.
 */
export function readVaultKeys(env: Environment): KeyRing {
  const given = text(env, 'LONGHAUL_VAULT_KEY');
  const file = text(env, 'LONGHAUL_VAULT_KEY_FILE');
  if (given !== null) return KeyRing.parse(given);
  if (file !== null) return KeyRing.parse(readKeyFile(file));
  const how = 'set LONGHAUL_VAULT_KEY_FILE or LONGHAUL_VAULT_KEY; `openssl rand -base64 32` makes one';
  throw new LonghaulError('setup_required', `there is no master key for the vault: ${how}`);
}

function readKeyFile(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw new LonghaulError('setup_required', `LONGHAUL_VAULT_KEY_FILE: ${file} cannot be read`, { cause: error });
  }
}

function text(env: Environment, name: string): string | null {
  const value = env[name]?.trim();
  return value === undefined || value === '' ? null : value;
}

export interface BackendsConfig {
  env: { names: string[]; values: Environment } | null;
  fileRoot: string | null;
  hashicorp: HashicorpConfig | null;
  infisical: InfisicalConfig | null;
  /** Where OAuth and MCP servers of teams may be beside the public internet. */
  privateHosts: string[];
}

/** What the broker reads values from beside our own rows. A half-set back end is refused by name. */
export function readBackendsConfig(env: Environment): BackendsConfig {
  const names = list(env, 'LONGHAUL_VAULT_ENV');
  const wrong = names.find((name) => !/^[A-Za-z_]\w*@(?:\*|[\w.@-]+)$/.test(name));
  if (wrong !== undefined)
    throw new LonghaulError('setup_required', `LONGHAUL_VAULT_ENV: ${wrong} must be NAME@team or NAME@*`);
  return {
    env: names.length === 0 ? null : { names, values: env },
    fileRoot: text(env, 'LONGHAUL_VAULT_FILE_ROOT'),
    hashicorp: readHashicorp(env),
    infisical: readInfisical(env),
    privateHosts: list(env, 'LONGHAUL_VAULT_PRIVATE_HOSTS'),
  };
}

function readHashicorp(env: Environment): HashicorpConfig | null {
  const address = url(env, 'LONGHAUL_VAULT_HASHICORP_URL');
  if (address === null) return null;
  return {
    address,
    namespace: text(env, 'LONGHAUL_VAULT_HASHICORP_NAMESPACE'),
    mount: text(env, 'LONGHAUL_VAULT_HASHICORP_MOUNT') ?? 'secret',
    prefix: text(env, 'LONGHAUL_VAULT_HASHICORP_PREFIX') ?? 'longhaul/{team}/',
    auth: readHashicorpAuth(env),
  };
}

function readHashicorpAuth(env: Environment): HashicorpAuth {
  const mount = text(env, 'LONGHAUL_VAULT_HASHICORP_AUTH_MOUNT');
  const token = secret(env, 'LONGHAUL_VAULT_HASHICORP_TOKEN', 'LONGHAUL_VAULT_HASHICORP_TOKEN_FILE');
  if (token !== null) return { type: 'token', token };
  const roleId = text(env, 'LONGHAUL_VAULT_HASHICORP_ROLE_ID');
  if (roleId !== null) {
    const secretId = secret(env, 'LONGHAUL_VAULT_HASHICORP_SECRET_ID', 'LONGHAUL_VAULT_HASHICORP_SECRET_ID_FILE');
    if (secretId === null) throw new LonghaulError('setup_required', 'LONGHAUL_VAULT_HASHICORP_SECRET_ID is not set');
    return { type: 'approle', roleId, secretId, mount: mount ?? 'approle' };
  }
  const role = text(env, 'LONGHAUL_VAULT_HASHICORP_KUBERNETES_ROLE');
  if (role !== null) {
    const standard = '/var/run/secrets/kubernetes.io/serviceaccount/token';
    const tokenFile = text(env, 'LONGHAUL_VAULT_HASHICORP_KUBERNETES_TOKEN_FILE') ?? standard;
    return { type: 'kubernetes', role, tokenFile, mount: mount ?? 'kubernetes' };
  }
  throw new LonghaulError(
    'setup_required',
    'LONGHAUL_VAULT_HASHICORP_URL needs LONGHAUL_VAULT_HASHICORP_TOKEN, _ROLE_ID or _KUBERNETES_ROLE',
  );
}

function readInfisical(env: Environment): InfisicalConfig | null {
  const address = url(env, 'LONGHAUL_VAULT_INFISICAL_URL');
  if (address === null) return null;
  return {
    url: address,
    clientId: required('LONGHAUL_VAULT_INFISICAL_CLIENT_ID', text(env, 'LONGHAUL_VAULT_INFISICAL_CLIENT_ID')),
    clientSecret: required(
      'LONGHAUL_VAULT_INFISICAL_CLIENT_SECRET',
      secret(env, 'LONGHAUL_VAULT_INFISICAL_CLIENT_SECRET', 'LONGHAUL_VAULT_INFISICAL_CLIENT_SECRET_FILE'),
    ),
    projectId: required('LONGHAUL_VAULT_INFISICAL_PROJECT', text(env, 'LONGHAUL_VAULT_INFISICAL_PROJECT')),
    environment: text(env, 'LONGHAUL_VAULT_INFISICAL_ENVIRONMENT') ?? 'prod',
    prefix: text(env, 'LONGHAUL_VAULT_INFISICAL_PREFIX') ?? '/longhaul/{team}',
  };
}

function required(name: string, value: string | null): string {
  if (value === null) throw new LonghaulError('setup_required', `${name} is not set`);
  return value;
}

function url(env: Environment, name: string): string | null {
  const value = text(env, name);
  if (value === null) return null;
  if (!URL.canParse(value) || !/^https?:$/.test(new URL(value).protocol)) {
    throw new LonghaulError('setup_required', `${name} must be an http or https URL`);
  }
  return value.replace(/\/+$/, '');
}

/** A secret of ours, from the environment or a file. */
function secret(env: Environment, name: string, fileName: string): string | null {
  const file = text(env, fileName);
  if (text(env, name) !== null || file === null) return text(env, name);
  try {
    return readFileSync(file, 'utf8').trim();
  } catch (error) {
    throw new LonghaulError('setup_required', `${fileName}: ${file} cannot be read`, { cause: error });
  }
}

function list(env: Environment, name: string): string[] {
  return (text(env, name) ?? '')
    .split(',')
    .map((entry) => entry.trim())
    .filter((entry) => entry !== '');
}
