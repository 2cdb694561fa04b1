import type { ToolCallUpdate } from '@agentclientprotocol/sdk';
import type { HarnessCapabilities, HarnessSpec } from '../port.ts';

/** A file the agent reads when it starts, below its home. */
interface HomeFile {
  path: string;
  content: string;
}

/** How one agent is started and what it cannot do: all the generic driver does not learn from the agent itself. */
export interface AcpRecipe {
  name: string;
  /** Found on the PATH where the agent runs, unless the installation knows where its program is. */
  argv: readonly string[];
  /** What comes behind the program when the installation knows it. */
  args: readonly string[];
  /** For `authenticate`; null where keys in the environment are enough. */
  authMethod: string | null;
  /** How it learns its model: asked over the protocol, or when its process starts. */
  model: 'protocol' | 'process';
  /** Environment of its process; `home` is its HOME. */
  env(at: { spec: HarnessSpec; model: string; home: string }): Record<string, string>;
  /** Files of its home. */
  files(at: { spec: HarnessSpec; model: string }): HomeFile[];
  /** The tool's name when the call is one of our MCP tools. Nothing the model writes may decide about it. */
  ownTool(update: ToolCallUpdate): string | undefined;
  /** It ends turns as successes although the model's call failed. */
  hidesErrors: boolean;
  /** A session that is loaded earlier after its creation is lost. */
  loadsAfterMs: number;
  can: Pick<HarnessCapabilities, 'systemPrompt' | 'usageBasis' | 'skills' | 'remoteTools'>;
  notes: readonly string[];
}

const NOT_SHOWN = (): undefined => undefined;
const NO_REASON =
  'A denied call tells the model that it was refused; the reason follows only where the agent stops for it.';
const UNTRIED = 'Not run by this project: written from its public documentation.';

function common(name: string, argv: string[]): Omit<AcpRecipe, 'env' | 'files'> {
  return {
    name,
    argv,
    args: argv.slice(1),
    authMethod: null,
    model: 'process',
    ownTool: NOT_SHOWN,
    hidesErrors: false,
    loadsAfterMs: 0,
    can: { systemPrompt: 'none', usageBasis: 'none', skills: false, remoteTools: false },
    notes: [NO_REASON],
  };
}

function instructions(path: string, { spec }: { spec: HarnessSpec }): HomeFile[] {
  return spec.systemPrompt === null ? [] : [{ path, content: spec.systemPrompt }];
}

function openaiEnv({ spec, model }: { spec: HarnessSpec; model: string }): Record<string, string> {
  return { OPENAI_BASE_URL: `${spec.model.baseUrl}/v1`, OPENAI_API_KEY: spec.model.key, OPENAI_MODEL: model };
}

const gemini: AcpRecipe = {
  ...common('gemini', ['gemini', '--acp']),
  authMethod: 'gemini-api-key',
  model: 'protocol',
  env: ({ spec, model, home }) => ({
    GOOGLE_GEMINI_BASE_URL: spec.model.baseUrl,
    GEMINI_API_KEY: spec.model.key,
    GEMINI_MODEL: model,
    GEMINI_CLI_HOME: home,
    GEMINI_CLI_NO_RELAUNCH: 'true',
    GEMINI_TELEMETRY_ENABLED: 'false',
  }),
  files: (at) => [
    {
      path: '.gemini/settings.json',
      content: JSON.stringify({
        security: { auth: { selectedType: 'gemini-api-key' }, folderTrust: { enabled: false } },
        general: { disableAutoUpdate: true, disableUpdateNag: true },
        privacy: { usageStatisticsEnabled: false },
        telemetry: { enabled: false },
      }),
    },
    ...instructions('.gemini/GEMINI.md', at),
  ],
  // Files of sessions are named by the minute, and loading one within the minute of its creation cuts it.
  loadsAfterMs: 61_000,
  can: { systemPrompt: 'append', usageBasis: 'per_turn', skills: false, remoteTools: false },
  notes: [
    NO_REASON,
    'A session that died within a minute of its creation waits until that minute is over before it is loaded.',
    'A stream that is cut hangs it: the watchdog ends such a turn.',
  ],
};

const qwen: AcpRecipe = {
  ...common('qwen', ['qwen', '--acp', '--auth-type', 'openai']),
  authMethod: 'openai',
  env: (at) => ({ ...openaiEnv(at), QWEN_TELEMETRY_ENABLED: 'false' }),
  files: (at) => [
    {
      path: '.qwen/settings.json',
      content: JSON.stringify({
        security: { auth: { selectedType: 'openai' }, folderTrust: { enabled: false } },
        // Its `auto` mode asks a model about every call.
        tools: { approvalMode: 'default' },
        privacy: { usageStatisticsEnabled: false },
      }),
    },
    ...instructions('.qwen/QWEN.md', at),
  ],
  can: { systemPrompt: 'append', usageBasis: 'none', skills: false, remoteTools: false },
  notes: [NO_REASON, 'A model is chosen when its process starts: another one for a message starts it anew.'],
};

const cursor: AcpRecipe = {
  ...common('cursor', ['cursor-agent', 'acp']),
  env: () => ({}),
  files: () => [],
  notes: [
    UNTRIED,
    'Its models come from its vendor: they cannot be routed to the gateway, so a turn has no cost in the ledger. It needs CURSOR_API_KEY in the environment of the agent.',
  ],
};

const hermes: AcpRecipe = {
  ...common('hermes', ['hermes', 'acp']),
  env: openaiEnv,
  files: (at) => instructions('.hermes/SOUL.md', at),
  can: { systemPrompt: 'append', usageBasis: 'none', skills: false, remoteTools: false },
  notes: [
    UNTRIED,
    NO_REASON,
    'It needs a provider in its own configuration; the one for OpenAI-compatible endpoints is used.',
  ],
};

const goose: AcpRecipe = {
  ...common('goose', ['goose', 'acp']),
  env: ({ spec, model }) => ({
    GOOSE_PROVIDER: 'openai',
    GOOSE_MODEL: model,
    GOOSE_MODE: 'approve',
    GOOSE_DISABLE_KEYRING: '1',
    OPENAI_HOST: spec.model.baseUrl,
    OPENAI_API_KEY: spec.model.key,
  }),
  files: (at) => instructions('.config/goose/.goosehints', at),
  can: { systemPrompt: 'append', usageBasis: 'none', skills: false, remoteTools: false },
  notes: [UNTRIED, NO_REASON],
};

const openhands: AcpRecipe = {
  ...common('openhands', ['openhands', 'acp']),
  env: ({ spec, model }) => ({
    LLM_BASE_URL: `${spec.model.baseUrl}/v1`,
    LLM_API_KEY: spec.model.key,
    LLM_MODEL: `openai/${model}`,
  }),
  files: () => [],
  notes: [UNTRIED, 'At its launch it ran tools without asking: use it only where every tool may run.'],
};

const deepagents: AcpRecipe = {
  ...common('deepagents', ['deepagents-acp']),
  env: openaiEnv,
  files: () => [],
  notes: [UNTRIED, NO_REASON, 'Not on npm under that name today; the Python package has the program.'],
};

/** By the name that an agent's definition gives. */
export const ACP_RECIPES: ReadonlyMap<string, AcpRecipe> = new Map(
  [gemini, qwen, cursor, hermes, goose, openhands, deepagents].map((recipe) => [recipe.name, recipe]),
);
