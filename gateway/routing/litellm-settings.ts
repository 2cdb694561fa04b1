import type { RoutingStrategy } from '../../contracts/routing.ts';
import { fieldsOf, numberOf, textOf, type Fields, type KeyReader } from './litellm-keys.ts';

/** What LiteLLM's three blocks of settings say, in our terms. */
export interface Settings {
  strategy: RoutingStrategy | undefined;
  retries: number | undefined;
  allowedFails: number | undefined;
  cooldownMs: number | undefined;
  timeoutMs: number | undefined;
  streamTimeoutMs: number | undefined;
  fallbacks: Record<string, string[]>;
  defaultFallbacks: string[];
  contextWindowFallbacks: Record<string, string[]>;
  contentPolicyFallbacks: Record<string, string[]>;
  aliases: Record<string, string>;
  masterKeyVariable: string | undefined;
}

const STRATEGIES: Readonly<Record<string, { strategy: RoutingStrategy; note?: string }>> = {
  'simple-shuffle': { strategy: 'simple-shuffle' },
  'least-busy': { strategy: 'least-busy' },
  'latency-based-routing': { strategy: 'latency-based' },
  'usage-based-routing': { strategy: 'least-busy', note: 'calls under way are counted instead of tokens a minute' },
  'usage-based-routing-v2': { strategy: 'least-busy', note: 'calls under way are counted instead of tokens a minute' },
};
/** Both blocks take these; the router's word counts, as in LiteLLM. */
const SHARED = [
  'num_retries',
  'fallbacks',
  'context_window_fallbacks',
  'content_policy_fallbacks',
  'allowed_fails',
  'cooldown_time',
  'default_fallbacks',
];
const KNOWN = {
  litellm_settings: [...SHARED, 'request_timeout'],
  router_settings: [...SHARED, 'routing_strategy', 'model_group_alias', 'timeout', 'stream_timeout'],
  general_settings: ['master_key'],
} as const;
const WHY_NOT: Readonly<Record<string, string>> = {
  database_url: 'Longhaul keeps everything in the Postgres of DATABASE_URL',
  callbacks: 'traces leave over OTLP',
  success_callback: 'traces leave over OTLP',
  failure_callback: 'traces leave over OTLP',
  cache: 'the response cache is switched on per agent',
  cache_params: 'the response cache is switched on per agent',
  drop_params: 'requests pass through unchanged; the provider judges its parameters',
  redis_host: 'health of deployments is kept per gateway process',
  redis_port: 'health of deployments is kept per gateway process',
  redis_password: 'health of deployments is kept per gateway process',
  redis_url: 'health of deployments is kept per gateway process',
  sandbox_choice: 'sandboxes are configured by environments',
  e2b_sandbox_params: 'sandboxes are configured by environments',
};

/** Reads `litellm_settings`, `router_settings` and `general_settings`. */
export function readSettings(root: Fields, keys: KeyReader): Settings {
  const blocks = {
    litellm_settings: fieldsOf(root['litellm_settings']),
    router_settings: fieldsOf(root['router_settings']),
    general_settings: fieldsOf(root['general_settings']),
  };
  for (const [block, fields] of Object.entries(blocks)) {
    const known: readonly string[] = KNOWN[block as keyof typeof KNOWN];
    for (const key of Object.keys(fields)) {
      if (!known.includes(key)) keys.ignore(`${block}.${key}`, WHY_NOT[key] ?? 'Longhaul has no equal for it');
    }
  }
  const own = blocks.router_settings;
  const shared = (key: string): unknown => own[key] ?? blocks.litellm_settings[key];
  const number = (key: string): number | undefined => take(keys, key, numberOf(shared(key)));
  const seconds = (key: string, value: unknown): number | undefined => {
    const found = take(keys, key, numberOf(value));
    return found === undefined ? undefined : Math.max(1, Math.round(found * 1_000));
  };
  return {
    strategy: readStrategy(own['routing_strategy'], keys),
    retries: whole(number('num_retries'), 10),
    allowedFails: whole(number('allowed_fails'), 1_000),
    cooldownMs: seconds('cooldown_time', shared('cooldown_time')),
    timeoutMs: seconds('timeout', own['timeout'] ?? blocks.litellm_settings['request_timeout']),
    streamTimeoutMs: seconds('stream_timeout', own['stream_timeout']),
    fallbacks: readChains(shared('fallbacks')),
    defaultFallbacks: namesOf(shared('default_fallbacks')),
    contextWindowFallbacks: readChains(shared('context_window_fallbacks')),
    contentPolicyFallbacks: readChains(shared('content_policy_fallbacks')),
    aliases: readAliases(own['model_group_alias'], keys),
    masterKeyVariable: readMasterKey(blocks.general_settings['master_key'], keys),
  };
}

function take<T>(keys: KeyReader, key: string, value: T | undefined): T | undefined {
  if (value !== undefined) keys.take(key, String(value));
  return value;
}

function whole(value: number | undefined, most: number): number | undefined {
  return value === undefined ? undefined : Math.min(Math.round(value), most);
}

function readStrategy(value: unknown, keys: KeyReader): RoutingStrategy | undefined {
  const name = textOf(value);
  if (name === undefined) return undefined;
  const known = Object.hasOwn(STRATEGIES, name) ? STRATEGIES[name] : undefined;
  if (known === undefined)
    keys.ignore('router_settings.routing_strategy', `${name} is unknown; simple-shuffle is used`);
  else
    keys.take(
      'router_settings.routing_strategy',
      `${known.strategy}${known.note === undefined ? '' : `: ${known.note}`}`,
    );
  return known?.strategy;
}

/** LiteLLM writes chains as a list of objects with one key each. */
function readChains(value: unknown): Record<string, string[]> {
  const chains: Record<string, string[]> = {};
  for (const entry of Array.isArray(value) ? value : []) {
    for (const [from, to] of Object.entries(fieldsOf(entry))) chains[from] = namesOf(to);
  }
  return chains;
}

function namesOf(value: unknown): string[] {
  return (Array.isArray(value) ? value : []).flatMap((name) => textOf(name) ?? []).slice(0, 10);
}

function readAliases(value: unknown, keys: KeyReader): Record<string, string> {
  const aliases: Record<string, string> = {};
  for (const [name, target] of Object.entries(fieldsOf(value))) {
    const to = textOf(target) ?? textOf(fieldsOf(target)['model']);
    if (to === undefined) keys.ignore(`router_settings.model_group_alias.${name}`, 'it names no model');
    else aliases[name] = to;
  }
  return aliases;
}

function readMasterKey(value: unknown, keys: KeyReader): string | undefined {
  const name = typeof value === 'string' ? /^os\.environ\/([A-Za-z_]\w*)$/.exec(value)?.[1] : undefined;
  if (value !== undefined && name === undefined) {
    keys.ignore(
      'general_settings.master_key',
      'a key in the file itself is never taken: write os.environ/NAME, or make a key with `longhaul keys create`',
    );
  }
  if (name !== undefined && keys.variable(name) === undefined) {
    keys.ignore('general_settings.master_key', `the variable ${name} is not set`);
    return undefined;
  }
  if (name !== undefined)
    keys.take('general_settings.master_key', `the key in ${name} becomes an API key of team default`);
  return name;
}
