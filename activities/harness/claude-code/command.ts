import type { HarnessSpec } from '../port.ts';

/** Programs are found where systems have them, and nothing of the worker's environment is given on. */
const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
/** A call waits as long as its effect may take, and that is ours to limit. */
const TOOL_TIMEOUT_MS = 24 * 3_600_000;
const START_TIMEOUT_MS = 120_000;
const HOOK_TIMEOUT_SECONDS = 600;
/** Then the attempt ends with the model's own error, and the next one comes after a pause. */
const MODEL_RETRIES = 3;

/** Where Claude keeps everything of its own: settings, sessions. */
export function configDir(spec: HarnessSpec): string {
  return `${spec.stateDir}/claude`;
}

const settingsFile = (spec: HarnessSpec): string => `${spec.stateDir}/settings.json`;
const mcpFile = (spec: HarnessSpec): string => `${spec.stateDir}/mcp.json`;
const promptFile = (spec: HarnessSpec): string => `${spec.stateDir}/system-prompt.md`;

/** Files that a process is started with; they hold the session's tokens, which arguments would show to everybody. */
export function launchFiles(spec: HarnessSpec): { path: string; content: string }[] {
  const { hook, mcpServers, systemPrompt } = spec;
  // Without an answer of the hook a call is not made.
  const asks = { type: 'http', ...hook, onFailure: 'block', timeout: HOOK_TIMEOUT_SECONDS };
  const settings = {
    permissions: { allow: mcpServers.map(({ name }) => `mcp__${name}`) },
    ...(hook === undefined ? {} : { hooks: { PreToolUse: [{ matcher: '*', hooks: [asks] }] } }),
  };
  const servers = mcpServers.map(({ name, url, headers }) => [name, { type: 'http', url, headers }]);
  return [
    { path: settingsFile(spec), content: JSON.stringify(settings) },
    { path: mcpFile(spec), content: JSON.stringify({ mcpServers: Object.fromEntries(servers) as object }) },
    ...(systemPrompt === null ? [] : [{ path: promptFile(spec), content: systemPrompt }]),
  ];
}

interface Launch {
  program: string;
  spec: HarnessSpec;
  model: string;
  /** The session, and whether it is new. */
  session: { id: string; isNew: boolean };
}

/** Its own tools are none, so our MCP servers are its only hands. */
export function launchArgv({ program, spec, model, session }: Launch): string[] {
  const { id, isNew } = session;
  const options = [
    ['--input-format', 'stream-json', '--output-format', 'stream-json', '--include-partial-messages', '--verbose'],
    [isNew ? '--session-id' : '--resume', id],
    ['--model', model],
    ['--settings', settingsFile(spec)],
    ['--mcp-config', mcpFile(spec), '--strict-mcp-config'],
    ['--tools', ''],
    ['--disable-slash-commands'],
    spec.systemPrompt === null ? [] : ['--system-prompt-file', promptFile(spec)],
  ];
  return [program, '--print', ...options.flat()];
}

/** All of its environment. Nothing it starts could read the key from there: it has no tool that starts anything. */
export function launchEnv(spec: HarnessSpec): Record<string, string> {
  return {
    PATH,
    HOME: `${spec.stateDir}/home`,
    LANG: 'C.UTF-8',
    ...spec.env,
    CLAUDE_CONFIG_DIR: configDir(spec),
    ANTHROPIC_BASE_URL: spec.model.baseUrl,
    ANTHROPIC_API_KEY: spec.model.key,
    CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: '1',
    CLAUDE_CODE_DISABLE_AUTO_MEMORY: '1',
    CLAUDE_CODE_DISABLE_NONSTREAMING_FALLBACK: '1',
    DISABLE_AUTOUPDATER: '1',
    ENABLE_TOOL_SEARCH: 'false',
    CLAUDE_CODE_MAX_RETRIES: String(MODEL_RETRIES),
    MCP_TIMEOUT: String(START_TIMEOUT_MS),
    MCP_TOOL_TIMEOUT: String(TOOL_TIMEOUT_MS),
  };
}
