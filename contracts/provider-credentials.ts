/** Zod-free. Which variables of the environment are provider keys: the gateway alone gets them, and routes name them. */

/** A variable that holds a provider's key, and the hosts a route made over the API may send it to. */
export interface CredentialRule {
  name: string;
  /** Host, `host:port` or `*.suffix`; null: wherever a route says. */
  hosts: readonly string[] | null;
}

const AZURE_HOSTS = ['*.openai.azure.com', '*.cognitiveservices.azure.com', '*.services.ai.azure.com'];
/** AWS signs with its secret and never sends it, so no host is special. */
const ANY_HOST = null;

/** Keys of the vendors the gateway knows by name. */
const WELL_KNOWN: readonly CredentialRule[] = [
  { name: 'ANTHROPIC_API_KEY', hosts: ['api.anthropic.com'] },
  { name: 'OPENAI_API_KEY', hosts: ['api.openai.com'] },
  { name: 'AZURE_API_KEY', hosts: AZURE_HOSTS },
  { name: 'AZURE_OPENAI_API_KEY', hosts: AZURE_HOSTS },
  { name: 'AWS_ACCESS_KEY_ID', hosts: ANY_HOST },
  { name: 'AWS_SECRET_ACCESS_KEY', hosts: ANY_HOST },
  { name: 'AWS_SESSION_TOKEN', hosts: ANY_HOST },
  { name: 'GOOGLE_APPLICATION_CREDENTIALS_JSON', hosts: ['*.googleapis.com'] },
  { name: 'GEMINI_API_KEY', hosts: ['generativelanguage.googleapis.com'] },
  { name: 'GROQ_API_KEY', hosts: ['api.groq.com'] },
  { name: 'MISTRAL_API_KEY', hosts: ['api.mistral.ai'] },
  { name: 'DEEPSEEK_API_KEY', hosts: ['api.deepseek.com'] },
  { name: 'OPENROUTER_API_KEY', hosts: ['openrouter.ai'] },
  { name: 'TOGETHERAI_API_KEY', hosts: ['api.together.xyz'] },
  { name: 'FIREWORKS_AI_API_KEY', hosts: ['api.fireworks.ai'] },
  { name: 'XAI_API_KEY', hosts: ['api.x.ai'] },
];

/** Base URLs of the two vendors that the environment may move elsewhere: their keys go there, too. */
const MOVED_BY: Readonly<Record<string, string>> = {
  ANTHROPIC_API_KEY: 'ANTHROPIC_BASE_URL',
  OPENAI_API_KEY: 'OPENAI_BASE_URL',
};

const NAME = /^[A-Za-z_]\w*$/;

/** Every provider key of an environment: the well-known ones and `listed` ones, `NAME` or `NAME@host` between commas. */
export function credentialRules(
  env: Readonly<Record<string, string | undefined>>,
  listed: string | undefined,
): CredentialRule[] {
  const rules = WELL_KNOWN.map(({ name, hosts }) => {
    const moved = hostOf(env[MOVED_BY[name] ?? '']);
    return { name, hosts: hosts === null || moved === undefined ? hosts : [...hosts, moved] };
  });
  for (const entry of (listed ?? '').split(',')) {
    const [name = '', host] = entry.trim().split('@', 2);
    if (!NAME.test(name)) continue;
    const known = rules.find((rule) => rule.name === name);
    if (known === undefined) rules.push({ name, hosts: host === undefined ? null : [host] });
    else known.hosts = host === undefined || known.hosts === null ? null : [...known.hosts, host];
  }
  return rules;
}

/** Names a configuration file refers to, in our spelling (`env:NAME`) or LiteLLM's (`os.environ/NAME`). */
export function credentialNamesIn(configText: string): string[] {
  const names = configText.matchAll(/(?:\benv:|\bos\.environ\/)([A-Za-z_]\w*)/g);
  return [...new Set(Array.from(names, ([, name = '']) => name))];
}

/** True when `url` points to one of the hosts. */
export function isHostAllowed(url: string, hosts: readonly string[] | null): boolean {
  if (hosts === null) return true;
  const { host, hostname } = new URL(url);
  return hosts.some((entry) =>
    entry.startsWith('*.') ? hostname.endsWith(entry.slice(1)) : entry === host || entry === hostname || entry === '*',
  );
}

function hostOf(url: string | undefined): string | undefined {
  if (url === undefined || !URL.canParse(url)) return undefined;
  return new URL(url).host;
}
