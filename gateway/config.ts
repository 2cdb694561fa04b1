import { closeSync, readFileSync } from 'node:fs';
import { readCacheConfig, type CacheConfig } from './cache/config.ts';
import { LonghaulError } from '../contracts/error-codes.ts';
import { LIMITS } from '../contracts/limits.ts';
import type { ModelDeployment, ModelRouteSpec } from '../contracts/model-routes.ts';
import { credentialNamesIn, credentialRules } from '../contracts/provider-credentials.ts';
import { Credentials } from './credentials.ts';

export interface GatewayTimeouts {
  /** From the request to the first byte of the answer's body. */
  firstByteMs: number;
  /** Between two pieces of the body. */
  idleMs: number;
  totalMs: number;
}

export interface GatewayConfig {
  /** Upstreams that are known by the environment alone, each as a route. */
  upstreams: readonly ModelRouteSpec[];
  scripted: boolean;
  /** File with routes, ours or LiteLLM's. */
  configFile: string | undefined;
  credentials: Credentials;
  /** Hosts that routes made over the API may go to, beside the vendors' own. */
  routeHosts: readonly string[];
  timeouts: GatewayTimeouts;
  /** How long a process that died is still believed to be making its recorded calls. */
  leaseMs: number;
  cache: CacheConfig;
  /** Output a budget holds money for when a caller sets no limit. */
  budgetOutputTokens: number;
}

/** What the gateway needs when it runs as its own process. */
export interface GatewayProcessConfig extends GatewayConfig {
  databaseUrl: string;
  host: string;
  port: number;
  logLevel: string;
}

type Environment = Record<string, string | undefined>;

/** Beginning of the variables of the vault, which are no business of the gateway's. */
const VAULT_PREFIX = `LONGHAUL_VAULT_`;
const LOOPBACK_HOSTS = new Set(['127.0.0.1', '::1', 'localhost']);

/** The gateway's part of the environment, for a process that embeds it. */
export function readGatewayConfig(env: Environment = takeEnvironment()): GatewayConfig {
  // What opens vaults is in this environment when api and gateway are one process; no route may name it.
  const set = Object.entries(env).filter(
    (entry): entry is [string, string] => isSet(entry[1]) && !entry[0].startsWith(VAULT_PREFIX),
  );
  return {
    upstreams: upstreamsOf(env),
    scripted: env['LONGHAUL_SCRIPTED'] === '1',
    configFile: isSet(env['LONGHAUL_GATEWAY_CONFIG']) ? env['LONGHAUL_GATEWAY_CONFIG'] : undefined,
    credentials: new Credentials(new Map(set), credentialRules(env, env['LONGHAUL_GATEWAY_CREDENTIALS'])),
    routeHosts: (env['LONGHAUL_GATEWAY_HOSTS'] ?? '')
      .split(',')
      .map((host) => host.trim())
      .filter((host) => host !== ''),
    timeouts: {
      firstByteMs: LIMITS.modelFirstByteMs,
      idleMs: LIMITS.modelIdleMs,
      totalMs: LIMITS.modelTotalMs,
    },
    leaseMs: wholeNumber(env, 'LONGHAUL_GATEWAY_LEASE_MS', 5_000),
    cache: readCacheConfig(env),
    budgetOutputTokens: wholeNumber(env, 'LONGHAUL_BUDGET_OUTPUT_TOKENS', LIMITS.budgetOutputTokens),
  };
}

/**
 * This process's own environment together with the keys a supervisor handed over, once. The providers' keys are taken
 * out of it: from here on they are in the gateway's memory, and no child process inherits them.
 */
export function takeEnvironment(): Environment {
  taken ??= { ...process.env, ...readHandedOver(process.env['LONGHAUL_CREDENTIALS_FD']) };
  const names = [
    ...credentialRules(taken, taken['LONGHAUL_GATEWAY_CREDENTIALS']).map((rule) => rule.name),
    ...credentialNamesIn(textOfFile(taken['LONGHAUL_GATEWAY_CONFIG'])),
    'LONGHAUL_CREDENTIALS_FD',
    'LONGHAUL_VAULT_KEY',
  ];
  for (const name of names) delete process.env[name];
  return taken;
}
let taken: Environment | undefined;

/** Keys that were written into an inherited descriptor: unlike an environment, nobody can read them there again. */
function readHandedOver(descriptor: string | undefined): Environment {
  if (!isSet(descriptor)) return {};
  const fd = Number(descriptor);
  try {
    return JSON.parse(readFileSync(fd, 'utf8')) as Environment;
  } finally {
    closeSync(fd);
  }
}

/** A file that cannot be read is reported by those who need its routes. */
function textOfFile(path: string | undefined): string {
  if (!isSet(path)) return '';
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

/** Model names by their shape, as long as a vendor's variable is set. */
function upstreamsOf(env: Environment): ModelRouteSpec[] {
  const routes: ModelRouteSpec[] = [];
  const add = (names: readonly string[], deployment: ModelDeployment): void => {
    for (const name of names) {
      // `anthropic/x` is asked for as `x`, `claude-x` as it is.
      const model = name.endsWith('/*') ? '*' : name;
      routes.push({ name, deployments: [{ ...deployment, model }] });
    }
  };
  const anthropicUrl = env['ANTHROPIC_BASE_URL'];
  const openaiUrl = env['OPENAI_BASE_URL'];
  if (isSet(anthropicUrl) || isSet(env['ANTHROPIC_API_KEY'])) {
    const key = isSet(env['ANTHROPIC_API_KEY']) ? { api_key: 'env:ANTHROPIC_API_KEY' } : {};
    add(['claude-*', 'anthropic/*'], { provider: 'anthropic', model: '', ...baseOf(anthropicUrl), ...key });
  }
  if (isSet(openaiUrl) || isSet(env['OPENAI_API_KEY'])) {
    const key = isSet(env['OPENAI_API_KEY']) ? { api_key: 'env:OPENAI_API_KEY' } : {};
    const numbered = Array.from({ length: 10 }, (_, digit) => `o${digit}*`);
    // With a base URL of its own it takes every name no rule knows (Ollama, vLLM, LiteLLM).
    const others = isSet(openaiUrl) ? ['*'] : [];
    const names = ['gpt-*', ...numbered, 'openai/*', ...others];
    add(names, { provider: 'openai', model: '', ...baseOf(openaiUrl), ...key });
  }
  return routes;
}

function baseOf(url: string | undefined): { base_url?: string } {
  if (!isSet(url)) return {};
  if (!URL.canParse(url)) throw new LonghaulError('setup_required', `"${url}" is not a URL`);
  return { base_url: url };
}

/** Everything `gateway/main.ts` needs; refuses an address that others can reach unless that is said to be wanted. */
export function readGatewayProcessConfig(env: Environment = takeEnvironment()): GatewayProcessConfig {
  const databaseUrl = env['DATABASE_URL'];
  if (databaseUrl === undefined || databaseUrl === '') {
    throw new LonghaulError('setup_required', 'DATABASE_URL is not set');
  }
  const host = env['LONGHAUL_GATEWAY_HOST'] ?? '127.0.0.1';
  if (!LOOPBACK_HOSTS.has(host) && env['LONGHAUL_ALLOW_PUBLIC'] !== '1') {
    throw new LonghaulError('insecure_bind', `refusing to bind ${host}: others could reach the gateway`);
  }
  return {
    ...readGatewayConfig(env),
    databaseUrl,
    host,
    port: wholeNumber(env, 'LONGHAUL_GATEWAY_PORT', 7433),
    logLevel: env['LONGHAUL_LOG_LEVEL'] ?? 'info',
  };
}

function isSet(value: string | undefined): value is string {
  return value !== undefined && value !== '';
}

function wholeNumber(env: Environment, name: string, standard: number): number {
  const text = env[name];
  if (!isSet(text)) return standard;
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 0) {
    throw new LonghaulError('setup_required', `${name} must be a whole number, not "${text}"`);
  }
  return value;
}
