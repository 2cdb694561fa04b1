import type { ModelDeployment } from '../../contracts/model-routes.ts';
import { fieldsOf, numberOf, textOf, type Fields, type KeyReader } from './litellm-keys.ts';

interface Imported {
  /** Names of routes the deployment belongs to. */
  names: string[];
  deployment: ModelDeployment;
}

/** Vendors that speak OpenAI's protocol: where they are and where LiteLLM looks for their key. */
const COMPATIBLE: Readonly<Record<string, { url: string; key?: string }>> = {
  ollama: { url: 'http://localhost:11434/v1' },
  ollama_chat: { url: 'http://localhost:11434/v1' },
  hosted_vllm: { url: 'http://localhost:8000/v1', key: 'HOSTED_VLLM_API_KEY' },
  litellm_proxy: { url: 'http://localhost:4000/v1', key: 'LITELLM_PROXY_API_KEY' },
  lm_studio: { url: 'http://localhost:1234/v1', key: 'LM_STUDIO_API_KEY' },
  gemini: { url: 'https://generativelanguage.googleapis.com/v1beta/openai', key: 'GEMINI_API_KEY' },
  groq: { url: 'https://api.groq.com/openai/v1', key: 'GROQ_API_KEY' },
  mistral: { url: 'https://api.mistral.ai/v1', key: 'MISTRAL_API_KEY' },
  deepseek: { url: 'https://api.deepseek.com/v1', key: 'DEEPSEEK_API_KEY' },
  openrouter: { url: 'https://openrouter.ai/api/v1', key: 'OPENROUTER_API_KEY' },
  together_ai: { url: 'https://api.together.xyz/v1', key: 'TOGETHERAI_API_KEY' },
  fireworks_ai: { url: 'https://api.fireworks.ai/inference/v1', key: 'FIREWORKS_AI_API_KEY' },
  xai: { url: 'https://api.x.ai/v1', key: 'XAI_API_KEY' },
};
const PARAMS = new Set([
  'model',
  'api_key',
  'api_base',
  'api_version',
  'timeout',
  'stream_timeout',
  'weight',
  'rpm',
  'tpm',
  'aws_region_name',
  'aws_access_key_id',
  'aws_secret_access_key',
  'aws_session_token',
  'vertex_project',
  'vertex_location',
  'vertex_credentials',
  'input_cost_per_token',
  'output_cost_per_token',
  'cache_read_input_token_cost',
  'cache_creation_input_token_cost',
]);
const INFO = new Set([
  'id',
  'input_cost_per_token',
  'output_cost_per_token',
  'cache_read_input_token_cost',
  'cache_creation_input_token_cost',
  'cache_creation_input_token_cost_above_1hr',
]);
const WHY_NOT_INFO: Readonly<Record<string, string>> = {
  base_model: 'the price is found by the deployment’s own model, or stands in its input_cost_per_token',
};
const NANOS_PER_DOLLAR = 1_000_000_000;

/** The deployments one entry of `model_list` makes: none when Longhaul cannot ask that provider, several for `*`. */
export function deploymentOf(at: string, name: string, entry: Fields, keys: KeyReader): Imported[] {
  const params = fieldsOf(entry['litellm_params']);
  const info = fieldsOf(entry['model_info']);
  for (const key of Object.keys(params)) {
    if (!PARAMS.has(key)) keys.ignore(`${at}.litellm_params.${key}`, 'Longhaul has no equal for it');
  }
  for (const key of Object.keys(info)) {
    if (!INFO.has(key)) keys.ignore(`${at}.model_info.${key}`, WHY_NOT_INFO[key] ?? 'Longhaul has no equal for it');
  }
  const model = keys.text(params['model'], `${at}.litellm_params.model`);
  if (model === undefined) {
    keys.ignore(`${at}.litellm_params.model`, 'without it nobody can be asked');
    return [];
  }
  if (!/^[^\s*]*\*?$/.test(name) || !/^[^\s*]*\*?$/.test(model)) {
    keys.ignore(at, 'a * is understood at the end of a name only');
    return [];
  }
  const shared = { ...limitsOf(at, params, keys), ...idOf(info), ...priceOf(params, info) };
  if (name === '*' && model === '*') return everything(at, params, shared, keys);
  const [provider, rest] = splitModel(model);
  const made = providerOf({ at, provider, model: rest, params, shared, keys });
  return made === undefined ? [] : [{ names: [name], deployment: made }];
}

/** `*` for `*`: LiteLLM guesses the vendor from the name. Ours are the names whose vendor is beyond doubt. */
function everything(at: string, params: Fields, shared: object, keys: KeyReader): Imported[] {
  keys.ignore(
    `${at}.litellm_params.model: *`,
    'only names of Anthropic and OpenAI are told apart: claude-, anthropic/, gpt-, o1, o3, o4, openai/',
  );
  const of = (provider: string, patterns: string[], model: string): Imported[] => {
    const deployment = providerOf({ at, provider, model, params, shared, keys });
    return deployment === undefined
      ? []
      : patterns.map((pattern) => ({ names: [pattern], deployment: renamed(deployment, pattern) }));
  };
  return [
    ...of('anthropic', ['claude-*', 'anthropic/*'], '*'),
    ...of('openai', ['gpt-*', 'o1*', 'o3*', 'o4*', 'openai/*'], '*'),
  ];
}

function renamed(deployment: ModelDeployment, pattern: string): ModelDeployment {
  return { ...deployment, model: pattern.includes('/') ? '*' : pattern };
}

/** `provider/model`; a bare name is its vendor's. */
function splitModel(model: string): [string, string] {
  const slash = model.indexOf('/');
  if (slash !== -1) return [model.slice(0, slash), model.slice(slash + 1)];
  return [model.startsWith('claude') ? 'anthropic' : 'openai', model];
}

interface ProviderInput {
  at: string;
  provider: string;
  model: string;
  params: Fields;
  shared: object;
  keys: KeyReader;
}

function providerOf(input: ProviderInput): ModelDeployment | undefined {
  const { at, provider, model, params, shared, keys } = input;
  const param = (name: string): string | undefined => keys.text(params[name], `${at}.litellm_params.${name}`);
  const secret = (name: string): string | undefined => keys.reference(params[name], `${at}.litellm_params.${name}`);
  const key = (standard: string | undefined): { api_key?: string } => {
    const ref = 'api_key' in params ? secret('api_key') : standard === undefined ? undefined : keys.default(standard);
    return ref === undefined ? {} : { api_key: ref };
  };
  const base = param('api_base');
  switch (provider) {
    case 'anthropic':
      // LiteLLM takes the base with or without the version.
      return {
        provider,
        model,
        ...shared,
        ...(base === undefined ? {} : { base_url: base.replace(/\/v1\/?$/, '') }),
        ...key('ANTHROPIC_API_KEY'),
      };
    case 'openai':
    case 'text-completion-openai':
    case 'custom_openai':
      return {
        provider: 'openai',
        model,
        ...shared,
        ...(base === undefined ? {} : { base_url: base }),
        ...key('OPENAI_API_KEY'),
      };
    case 'azure':
      return azureOf(
        input,
        base ?? keys.variable('AZURE_API_BASE'),
        param('api_version') ?? keys.variable('AZURE_API_VERSION'),
        key('AZURE_API_KEY').api_key,
      );
    case 'bedrock':
      return bedrockOf(
        input,
        param('aws_region_name') ?? keys.variable('AWS_REGION_NAME') ?? keys.variable('AWS_REGION'),
        secret,
      );
    case 'vertex_ai':
      return vertexOf(input, param('vertex_project'), param('vertex_location'), secret('vertex_credentials'));
    default: {
      const known = Object.hasOwn(COMPATIBLE, provider) ? COMPATIBLE[provider] : undefined;
      if (known === undefined) {
        keys.ignore(
          at,
          `the provider "${provider}" is not known here; if it speaks OpenAI's protocol, write openai/${model} with its api_base`,
        );
        return undefined;
      }
      const url = base === undefined ? known.url : withVersion(provider, base);
      return { provider: 'openai-compatible', model, ...shared, base_url: url, ...key(known.key) };
    }
  }
}

/** Ollama's own API lies at the root, its OpenAI one below /v1. */
function withVersion(provider: string, base: string): string {
  return provider.startsWith('ollama') && !/\/v1\/?$/.test(base) ? `${base.replace(/\/+$/, '')}/v1` : base;
}

function azureOf(
  { at, model, shared, keys }: ProviderInput,
  base: string | undefined,
  version: string | undefined,
  apiKey: string | undefined,
): ModelDeployment | undefined {
  if (base === undefined || version === undefined || apiKey === undefined) {
    keys.ignore(at, 'azure needs api_base, api_version and api_key as os.environ/NAME');
    return undefined;
  }
  return { provider: 'azure-openai', model, ...shared, base_url: base, api_version: version, api_key: apiKey };
}

function bedrockOf(
  { at, model, shared, keys }: ProviderInput,
  region: string | undefined,
  secret: (name: string) => string | undefined,
): ModelDeployment | undefined {
  const id = model.replace(/^(converse|invoke|converse_like)\//, '');
  if (!/(^|\.)anthropic\.|\*|:inference-profile\//.test(id) || region === undefined) {
    keys.ignore(
      at,
      region === undefined ? 'bedrock needs aws_region_name' : 'of Bedrock only Anthropic’s models are known here',
    );
    return undefined;
  }
  const [access, secretKey, token] = [
    secret('aws_access_key_id'),
    secret('aws_secret_access_key'),
    secret('aws_session_token'),
  ];
  return {
    provider: 'bedrock',
    model: id,
    ...shared,
    region,
    ...(access === undefined || secretKey === undefined ? {} : { access_key_id: access, secret_access_key: secretKey }),
    ...(token === undefined ? {} : { session_token: token }),
  };
}

function vertexOf(
  { at, model, shared, keys }: ProviderInput,
  project: string | undefined,
  location: string | undefined,
  credentials: string | undefined,
): ModelDeployment | undefined {
  if (!model.startsWith('claude') || project === undefined || location === undefined) {
    const why = model.startsWith('claude')
      ? 'vertex_ai needs vertex_project and vertex_location'
      : 'of Vertex AI only Claude models are known here';
    keys.ignore(at, why);
    return undefined;
  }
  return {
    provider: 'vertex',
    model,
    ...shared,
    project,
    location,
    ...(credentials === undefined ? {} : { credentials }),
  };
}

function limitsOf(at: string, params: Fields, keys: KeyReader): object {
  for (const key of ['rpm', 'tpm']) {
    if (key in params) keys.ignore(`${at}.litellm_params.${key}`, 'it is used as the weight, not as a limit');
  }
  const weight = numberOf(params['weight']) ?? numberOf(params['rpm']) ?? numberOf(params['tpm']);
  const timeoutMs = toMs(params['timeout']);
  const streamMs = toMs(params['stream_timeout']);
  return {
    ...(weight === undefined ? {} : { weight: Math.min(weight, 1_000_000) }),
    ...(timeoutMs === undefined ? {} : { timeout_ms: timeoutMs }),
    ...(streamMs === undefined ? {} : { first_byte_timeout_ms: streamMs }),
  };
}

function toMs(value: unknown): number | undefined {
  const seconds = numberOf(value);
  return seconds === undefined || seconds === 0
    ? undefined
    : Math.min(Math.max(1, Math.round(seconds * 1_000)), 20 * 60_000);
}

function idOf(info: Fields): object {
  const id = textOf(info['id']);
  return id !== undefined && /^[\w.:/@-]{1,128}$/.test(id) ? { id } : {};
}

function priceOf(params: Fields, info: Fields): object {
  const nanos = (name: string): number | undefined => {
    const dollars = numberOf(info[name] ?? params[name]);
    return dollars === undefined ? undefined : Number((dollars * NANOS_PER_DOLLAR).toPrecision(12));
  };
  const [input, output] = [nanos('input_cost_per_token'), nanos('output_cost_per_token')];
  if (input === undefined || output === undefined) return {};
  const optional = {
    cache_read_nanos: nanos('cache_read_input_token_cost'),
    cache_write_5m_nanos: nanos('cache_creation_input_token_cost'),
    cache_write_1h_nanos: nanos('cache_creation_input_token_cost_above_1hr'),
  };
  const given = Object.fromEntries(Object.entries(optional).filter(([, value]) => value !== undefined));
  return { price: { input_nanos: input, output_nanos: output, ...given } };
}
