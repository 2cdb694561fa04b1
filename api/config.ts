import { LonghaulError } from '../contracts/error-codes.ts';
import { egressClientConfig, type EgressClientConfig } from '../egress/client.ts';
import type { TemporalTarget } from '../temporal/config.ts';
import { readTemporalTarget } from '../temporal/config.ts';
import { readVaultKeys } from '../vault/config.ts';
import type { KeyRing } from '../vault/key-ring.ts';

export interface ApiConfig {
  databaseUrl: string;
  temporal: TemporalTarget;
  taskQueue: string;
  host: string;
  port: number;
  /** The operator said that this server may be reached from other machines. */
  allowPublic: boolean;
  /** Where clients reach this server, without a trailing slash; links begin with it. Empty: links are paths. */
  publicUrl: string;
  /** Under which host name the egress broker serves open ports of sandboxes. */
  portsUrl: string;
  logLevel: string;
  /** Refused without one: values would otherwise lie in the database as they are. */
  vaultKeys: KeyRing;
  /** null: there is no broker, and no credential can be tried. */
  egress: EgressClientConfig | null;
  /** Ids of what sessions of OpenCode clients are made with; empty: the team's first. */
  opencode?: { agentId: string; environmentId: string };
}

/** Reads the environment; a bad value is refused by name. */
export function readConfig(env: NodeJS.ProcessEnv = process.env): ApiConfig {
  const databaseUrl = env['DATABASE_URL'];
  if (databaseUrl === undefined || databaseUrl === '')
    throw new LonghaulError('setup_required', 'DATABASE_URL is not set');
  const port = Number(env['LONGHAUL_API_PORT'] ?? '4680');
  if (!Number.isInteger(port) || port < 0 || port > 65_535) {
    throw new LonghaulError('setup_required', 'LONGHAUL_API_PORT must be a port number');
  }
  return {
    databaseUrl,
    temporal: readTemporalTarget(env),
    taskQueue: env['LONGHAUL_TASK_QUEUE'] ?? 'longhaul',
    host: env['LONGHAUL_API_HOST'] ?? '127.0.0.1',
    port,
    allowPublic: env['LONGHAUL_ALLOW_PUBLIC'] === '1',
    publicUrl: readUrl(env, 'LONGHAUL_PUBLIC_URL'),
    portsUrl: readUrl(env, 'LONGHAUL_PORTS_URL') || 'http://localhost:4881',
    logLevel: env['LONGHAUL_LOG_LEVEL'] ?? 'info',
    vaultKeys: readVaultKeys(env),
    egress: egressClientConfig(env),
    opencode: {
      agentId: env['LONGHAUL_OPENCODE_AGENT'] ?? '',
      environmentId: env['LONGHAUL_OPENCODE_ENVIRONMENT'] ?? '',
    },
  };
}

function readUrl(env: NodeJS.ProcessEnv, name: string): string {
  const text = env[name];
  if (text === undefined || text === '') return '';
  const url = URL.parse(text);
  if (url === null || !/^https?:$/.test(url.protocol) || url.username !== '' || url.search !== '' || url.hash !== '') {
    throw new LonghaulError('setup_required', `${name} must be an http(s) URL`);
  }
  return url.href.replace(/\/+$/, '');
}
