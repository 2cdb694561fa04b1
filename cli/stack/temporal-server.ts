import { spawn, type ChildProcess } from 'node:child_process';
import type { ConnectionOptions } from '@temporalio/client';
import { bareEnvironment } from '../config.ts';

const SEARCH_ATTRIBUTES = {
  AgentId: 'Keyword',
  TeamId: 'Keyword',
  UserId: 'Keyword',
  Harness: 'Keyword',
  SessionStatus: 'Keyword',
  DeploymentId: 'Keyword',
  Repo: 'Keyword',
  AgentVersion: 'Int',
  CostMicros: 'Int',
  Labels: 'KeywordList',
  NeedsApproval: 'Bool',
} as const;

const DYNAMIC_CONFIG: Record<string, string> = {
  'matching.enableFairness': 'true',
  'system.enableActivityEagerExecution': 'true',
  'frontend.namespaceRPS': '10000',
  // Counts long polls: the default of 1,200 is reached by a few hundred waiting clients.
  'frontend.namespaceCount': '5000',
};

interface DevServerOptions {
  binary: string;
  port: number;
  /** null starts the server without its web UI. */
  uiPort: number | null;
  namespace: string;
  /** null keeps everything in memory. */
  databaseFile: string | null;
  dynamicConfig?: Record<string, string>;
  stdio: [stdin: 'ignore', stdout: number | 'ignore', stderr: number | 'ignore'];
  /** Folder for what the server writes beside its database. */
  home: string;
  dieWithParent?: boolean;
  detached?: boolean;
}

function devServerArgs(options: DevServerOptions): string[] {
  const args = ['server', 'start-dev', '--ip', '127.0.0.1', '--port', String(options.port)];
  args.push('--namespace', options.namespace, '--log-level', 'warn');
  if (options.uiPort === null) args.push('--headless');
  else args.push('--ui-ip', '127.0.0.1', '--ui-port', String(options.uiPort), '--ui-disable-news-fetch');
  if (options.databaseFile !== null) {
    args.push('--db-filename', options.databaseFile);
    // Write-ahead logging makes a start a third faster; `full` keeps acknowledged commits through a power loss.
    args.push('--sqlite-pragma', 'journal_mode=wal', '--sqlite-pragma', 'synchronous=full');
  }
  for (const [name, type] of Object.entries(SEARCH_ATTRIBUTES)) args.push('--search-attribute', `${name}=${type}`);
  for (const [key, value] of Object.entries({ ...DYNAMIC_CONFIG, ...options.dynamicConfig })) {
    args.push('--dynamic-config-value', `${key}=${value}`);
  }
  return args;
}

/** Spawns the Temporal dev server on loopback. */
export function spawnTemporal(options: DevServerOptions): ChildProcess {
  const args = devServerArgs(options);
  const guard = options.dieWithParent === true && process.platform === 'linux';
  const command = guard ? 'setpriv' : options.binary;
  return spawn(command, guard ? ['--pdeathsig=KILL', options.binary, ...args] : args, {
    stdio: options.stdio,
    detached: options.detached ?? false,
    // The Temporal CLI makes a configuration folder in its home.
    env: bareEnvironment(options.home),
  });
}

/** True when the server answers and the namespace can be used. */
export async function isTemporalReady(options: ConnectionOptions, namespace: string): Promise<boolean> {
  // Loaded here: the gRPC client is heavy, and most commands never need it.
  const { Connection } = await import('@temporalio/client');
  const connection = await Connection.connect({ ...options, connectTimeout: 2_000 });
  try {
    await connection.withDeadline(Date.now() + 2_000, () =>
      connection.workflowService.describeNamespace({ namespace }),
    );
    return true;
  } finally {
    await connection.close();
  }
}
