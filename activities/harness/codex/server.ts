import { mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { request } from 'undici';
import { isAlive } from '../../sandbox/local/host.ts';
import { readRecord } from '../host/registry.ts';
import { acquireServer, holdServer, secretFile, type HarnessHost, type ServerSpec } from '../host/servers.ts';
import type { HarnessBinary } from '../installs.ts';
import type { Wire } from './connection.ts';
import { connectWebSocket } from './websocket.ts';

/** Everything by which codex could act by itself is off: its model sees our tools and the list of their resources. */
const PLATFORM_HANDS_OFF = [
  'web_search="disabled"',
  'tools.experimental_request_user_input.enabled=false',
  ...[
    'shell_tool',
    'unified_exec',
    'shell_snapshot',
    'view_image',
    'image_generation',
    'multi_agent',
    'goals',
    'apps',
    'tool_suggest',
    'sleep_tool',
    'browser_use',
    'computer_use',
  ].map((feature) => `features.${feature}=false`),
  'skills.bundled.enabled=false',
  'features.skip_host_skill_discovery=true',
  // It tells of a file system and a network that the model cannot reach.
  'include_permissions_instructions=false',
  'include_environment_context=false',
];

/** For every placement: nothing is sent or fetched but by the session's own model and tools. */
const QUIET = [
  'analytics.enabled=false',
  'check_for_update_on_startup=false',
  'history.persistence="none"',
  'include_apps_instructions=false',
  'suppress_unstable_features_warning=true',
  ...['plugins', 'remote_plugin', 'hooks'].map((feature) => `features.${feature}=false`),
];

/**
 * Codex gives models that it knows tools of its own, among them a JavaScript engine, whatever is switched off. With a
 * catalogue that has no real model it knows none.
 */
const UNKNOWN_MODELS = JSON.stringify({
  models: [
    {
      slug: 'none',
      display_name: 'none',
      description: null,
      supported_reasoning_levels: [],
      shell_type: 'disabled',
      visibility: 'hide',
      supported_in_api: true,
      priority: 99,
      base_instructions: '',
      supports_reasoning_summaries: false,
      support_verbosity: false,
      default_verbosity: null,
      apply_patch_tool_type: null,
      truncation_policy: { mode: 'tokens', limit: 10_000 },
      supports_parallel_tool_calls: true,
      context_window: 200_000,
      experimental_supported_tools: [],
    },
  ],
});

const SERVER = 'codex';

/** Connects to the one `codex app-server` of a home: all inline sessions, one thread each. */
export async function connectShared(host: HarnessHost, binary: HarnessBinary, signal: AbortSignal): Promise<Wire> {
  const release = holdServer(host, SERVER);
  try {
    const folder = path.join(host.root, SERVER);
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const catalogue = path.join(folder, 'models.json');
    // A server that starts may read it just now.
    if ((await readFile(catalogue, 'utf8').catch(() => '')) !== UNKNOWN_MODELS)
      await writeFile(catalogue, UNKNOWN_MODELS);
    const server = await acquireServer(host, sharedServer(host, binary, catalogue), signal);
    const wire = await connectWebSocket(server.endpoint, server.secret, signal);
    return { ...wire, listen: (onText, onClose) => wire.listen(onText, () => (release(), onClose())) };
  } catch (error) {
    release();
    throw error;
  }
}

/** Without a server nothing of any session runs. */
export function isServerRunning(host: HarnessHost): boolean {
  const record = readRecord(host.root, SERVER);
  return record !== undefined && isAlive(record);
}

function sharedServer(host: HarnessHost, binary: HarnessBinary, catalogue: string): ServerSpec {
  const settings = [...QUIET, ...PLATFORM_HANDS_OFF, `model_catalog_json=${JSON.stringify(catalogue)}`];
  return {
    name: SERVER,
    binary: binary.path,
    args: (port) => [
      ...binary.args,
      'app-server',
      ...settings.flatMap((setting) => ['-c', setting]),
      '--listen',
      `ws://127.0.0.1:${port}`,
      '--ws-auth',
      'capability-token',
      '--ws-token-file',
      secretFile(host.root, SERVER),
    ],
    env: ({ folder }) => ({ CODEX_HOME: folder }),
    endpoint: (port) => `ws://127.0.0.1:${port}`,
    isReady: async ({ endpoint }, signal) => {
      const answer = await request(`${endpoint.replace('ws:', 'http:')}/readyz`, { signal });
      await answer.body.dump();
      return answer.statusCode === 200;
    },
  };
}
