import { connect } from 'node:net';
import path from 'node:path';
import { acquireServer, holdServer, type HarnessHost, type ServerSpec } from '../host/servers.ts';
import { requireHarness, type HarnessBinary } from '../installs.ts';
import { loadSdk, type CopilotClient } from './sdk.ts';

const SERVER = 'github-copilot';

/** A connection to the shared runtime, for one session. */
export interface CopilotLink {
  client: CopilotClient;
  /** Resolves when the runtime is gone, and then only. */
  lost: Promise<void>;
  close(): Promise<void>;
}

/** Where the runtime keeps its sessions. */
export function runtimeHome(host: HarnessHost): string {
  return path.join(host.root, SERVER);
}

/** Connects to the one runtime of a home: all inline sessions. */
export async function connectShared(host: HarnessHost, installDir: string, signal: AbortSignal): Promise<CopilotLink> {
  const binary = requireHarness(SERVER, installDir);
  const release = holdServer(host, SERVER);
  try {
    const server = await acquireServer(host, runtimeServer(binary), signal);
    const { CopilotClient: Client, RuntimeConnection } = await loadSdk(binary.packageDir);
    const client = new Client({
      connection: RuntimeConnection.forUri(server.endpoint, { connectionToken: server.secret }),
      // Nothing is on but what is asked for: no tools, skills, instructions, telemetry of its own.
      mode: 'empty',
      baseDirectory: runtimeHome(host),
      logLevel: 'error',
    });
    await client.start();
    const watch = watchServer(new URL(server.endpoint));
    return {
      client,
      lost: watch.lost,
      close: async () => {
        watch.end();
        release();
        await client.forceStop().catch(() => undefined);
      },
    };
  } catch (error) {
    release();
    throw error;
  }
}

function runtimeServer(binary: HarnessBinary): ServerSpec {
  return {
    name: SERVER,
    binary: binary.path,
    args: (port) => [...binary.args, '--headless', '--no-auto-update', '--no-auto-login', '--port', String(port)],
    env: ({ secret, folder }) => ({
      COPILOT_CONNECTION_TOKEN: secret,
      COPILOT_HOME: folder,
      // No account, no telemetry, no updates: models are asked through the session's provider only.
      COPILOT_OFFLINE: 'true',
      COPILOT_DISABLE_KEYTAR: '1',
    }),
    endpoint: (port) => `http://127.0.0.1:${port}`,
    isReady: ({ endpoint }, signal) => takesConnections(new URL(endpoint), signal),
  };
}

function takesConnections({ hostname, port }: URL, signal: AbortSignal): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host: hostname, port: Number(port), signal });
    socket.once('connect', () => (socket.destroy(), resolve(true)));
    socket.once('error', () => resolve(false));
  });
}

/** The SDK does not tell when the runtime dies; a connection of our own does. */
function watchServer({ hostname, port }: URL): { lost: Promise<void>; end(): void } {
  const socket = connect({ host: hostname, port: Number(port) });
  let isWanted = true;
  const lost = new Promise<void>((resolve) => {
    socket.once('close', () => {
      if (isWanted) resolve();
    });
  });
  socket.on('error', () => undefined);
  socket.unref();
  return {
    lost,
    end: () => {
      isWanted = false;
      socket.destroy();
    },
  };
}
