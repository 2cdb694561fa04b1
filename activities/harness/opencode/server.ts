import { request, type Agent } from 'undici';
import type { HarnessBinary } from '../installs.ts';
import type { ServerSpec } from '../host/servers.ts';
import { authorizationOf } from './api.ts';

/** For all directories, and stronger than a directory's own. */
const BASE_SETTINGS = {
  share: 'disabled',
  autoupdate: false,
  snapshot: false,
  lsp: false,
  formatter: false,
};

/** The one `opencode serve` of a home: all inline sessions, one directory each. */
export function openCodeServer(binary: HarnessBinary, agent: Agent): ServerSpec {
  return {
    name: 'opencode',
    binary: binary.path,
    args: (port) => [...binary.args, 'serve', '--hostname', '127.0.0.1', '--port', String(port)],
    env: ({ secret, folder }) => ({
      OPENCODE_SERVER_PASSWORD: secret,
      OPENCODE_CONFIG_CONTENT: JSON.stringify(BASE_SETTINGS),
      OPENCODE_PURE: '1',
      OPENCODE_DISABLE_AUTOUPDATE: '1',
      OPENCODE_DISABLE_MODELS_FETCH: '1',
      OPENCODE_DISABLE_LSP_DOWNLOAD: '1',
      OPENCODE_DISABLE_DEFAULT_PLUGINS: '1',
      OPENCODE_DISABLE_CLAUDE_CODE: '1',
      OPENCODE_DISABLE_EXTERNAL_SKILLS: '1',
      OPENCODE_DISABLE_SHARE: '1',
      OPENCODE_DISABLE_EMBEDDED_WEB_UI: '1',
      XDG_DATA_HOME: `${folder}/data`,
      XDG_CONFIG_HOME: `${folder}/config`,
      XDG_STATE_HOME: `${folder}/state`,
      XDG_CACHE_HOME: `${folder}/cache`,
    }),
    endpoint: (port) => `http://127.0.0.1:${port}`,
    isReady: async (address, signal) => {
      const url = `${address.endpoint}/global/health`;
      const headers = { authorization: authorizationOf(address) };
      const answer = await request(url, { dispatcher: agent, signal, headers });
      await answer.body.dump();
      return answer.statusCode === 200;
    },
  };
}
