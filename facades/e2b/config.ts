import { hostname } from 'node:os';
import path from 'node:path';
import { z } from 'zod';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { egressClientConfig, type EgressClientConfig } from '../../egress/client.ts';

const schema = z.object({
  DATABASE_URL: z.string().min(1),
  LONGHAUL_HOME: z.string().min(1).default('.longhaul'),
  LONGHAUL_LOG_LEVEL: z.enum(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent']).default('info'),
  LONGHAUL_ALLOW_PUBLIC: z.string().optional(),
  LONGHAUL_E2B_HOST: z.string().min(1).default('127.0.0.1'),
  LONGHAUL_E2B_PORT: z.coerce.number().int().min(0).max(65_535).default(4690),
  /** Sandboxes of one team that may run at once. */
  LONGHAUL_E2B_MAX_SANDBOXES: z.coerce.number().int().min(1).max(10_000).default(20),
  /** Names of templates that programs may ask for beside `base`; all are the same sandbox. */
  LONGHAUL_E2B_TEMPLATES: z.string().default(''),
  /** `1`: a sandbox whose program says nothing of the network reaches every public host. */
  LONGHAUL_E2B_ALLOW_INTERNET: z.enum(['', '0', '1']).default(''),
  LONGHAUL_EGRESS_TRUST_BUNDLE: z.string().optional(),
  LONGHAUL_E2B_GRACE_MS: z.coerce.number().int().min(100).max(3_600_000).default(120_000),
  LONGHAUL_E2B_SWEEP_MS: z.coerce.number().int().min(50).max(60_000).default(2_000),
});

export interface E2bServerConfig {
  databaseUrl: string;
  home: string;
  sandboxRoot: string;
  /** Of the sandboxes this server makes: not the workers', whose reaper would take them for lost ones. */
  owner: string;
  logLevel: string;
  host: string;
  port: number;
  maxSandboxes: number;
  templates: ReadonlySet<string>;
  /** What holds for a program that says nothing. */
  allowInternet: boolean;
  /** null: no broker, and so no network for any sandbox. */
  egress: EgressClientConfig | null;
  /** What sandboxes trust; the broker makes it. */
  trustBundleFile: string;
  sweepMs: number;
  /** How long another request or process may be at a change before the sweep takes it over. */
  graceMs: number;
}

const LOOPBACK = new Set(['127.0.0.1', '::1', 'localhost']);

/** Reads the environment; a bad value is refused by name. */
export function readConfig(env: NodeJS.ProcessEnv = process.env): E2bServerConfig {
  const parsed = schema.safeParse(env);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw new LonghaulError('setup_required', issue?.message ?? 'invalid', { field: issue?.path.join('.') ?? 'env' });
  }
  const values = parsed.data;
  if (!LOOPBACK.has(values.LONGHAUL_E2B_HOST) && values.LONGHAUL_ALLOW_PUBLIC !== '1') {
    throw new LonghaulError('insecure_bind', `LONGHAUL_E2B_HOST ${values.LONGHAUL_E2B_HOST} can be reached by others`);
  }
  const home = path.resolve(values.LONGHAUL_HOME);
  const templates = values.LONGHAUL_E2B_TEMPLATES.split(',').map((name) => name.trim());
  return {
    databaseUrl: values.DATABASE_URL,
    home,
    sandboxRoot: path.join(home, 'sandboxes'),
    owner: `e2b:${hostname()}:${home}`,
    logLevel: values.LONGHAUL_LOG_LEVEL,
    host: values.LONGHAUL_E2B_HOST,
    port: values.LONGHAUL_E2B_PORT,
    maxSandboxes: values.LONGHAUL_E2B_MAX_SANDBOXES,
    templates: new Set(['base', ...templates.filter((name) => name !== '')]),
    allowInternet: values.LONGHAUL_E2B_ALLOW_INTERNET === '1',
    egress: egressClientConfig(env),
    trustBundleFile: path.resolve(values.LONGHAUL_EGRESS_TRUST_BUNDLE || path.join(home, 'egress', 'trust-bundle.pem')),
    sweepMs: values.LONGHAUL_E2B_SWEEP_MS,
    graceMs: values.LONGHAUL_E2B_GRACE_MS,
  };
}
