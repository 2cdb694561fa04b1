import { readCacheConfig, type CacheConfig } from './cache/config.ts';
import { LIMITS } from '../contracts/limits.ts';
import { LonghaulError } from '../contracts/error-codes.ts';

/** An upstream that speaks a vendor's protocol. */
export interface UpstreamConfig {
  baseUrl: string;
  apiKey: string | undefined;
}

export interface GatewayTimeouts {
  /** From the request to the first byte of the answer's body. */
  firstByteMs: number;
  /** Between two pieces of the body. */
  idleMs: number;
  totalMs: number;
}

export interface GatewayConfig {
  anthropic: UpstreamConfig | undefined;
  openai: UpstreamConfig | undefined;
  /** With a base URL of its own, the OpenAI upstream takes every model name no rule knows (Ollama, vLLM, LiteLLM). */
  openaiTakesUnknownModels: boolean;
  scripted: boolean;
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

const LOOPBACK_HOSTS = new Set(['127.0.0.1', '::1', 'localhost']);

/** The gateway's part of the environment, for a process that embeds it. */
export function readGatewayConfig(env: Environment = process.env): GatewayConfig {
  const openai = upstream(env['OPENAI_BASE_URL'], env['OPENAI_API_KEY'], 'https://api.openai.com/v1');
  return {
    anthropic: upstream(env['ANTHROPIC_BASE_URL'], env['ANTHROPIC_API_KEY'], 'https://api.anthropic.com'),
    openai,
    openaiTakesUnknownModels: openai !== undefined && isSet(env['OPENAI_BASE_URL']),
    scripted: env['LONGHAUL_SCRIPTED'] === '1',
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

/** Everything `gateway/main.ts` needs; refuses an address that others can reach unless that is said to be wanted. */
export function readGatewayProcessConfig(env: Environment = process.env): GatewayProcessConfig {
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

function upstream(
  baseUrl: string | undefined,
  apiKey: string | undefined,
  standard: string,
): UpstreamConfig | undefined {
  if (!isSet(baseUrl) && !isSet(apiKey)) return undefined;
  return { baseUrl: isSet(baseUrl) ? baseUrl : standard, apiKey: isSet(apiKey) ? apiKey : undefined };
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
