import { hostname } from 'node:os';
import path from 'node:path';
import { z } from 'zod';
import { readDaytonaConfig } from '../activities/sandbox/daytona/config.ts';
import type { DaytonaOptions } from '../activities/sandbox/daytona/provider.ts';
import { readDockerOptions } from '../activities/sandbox/docker/config.ts';
import type { DockerOptions } from '../activities/sandbox/docker/provider.ts';
import type { TemporalTarget } from '../temporal/config.ts';
import { readE2bConfig } from '../activities/sandbox/e2b/config.ts';
import type { E2bOptions } from '../activities/sandbox/e2b/sdk.ts';
import { readKubernetesConfig } from '../activities/sandbox/kubernetes/config.ts';
import type { KubernetesOptions } from '../activities/sandbox/kubernetes/provider.ts';
import { readTemporalTarget } from '../temporal/config.ts';
import type { EgressClientConfig } from '../egress/client.ts';
import { egressClientConfig } from '../egress/client.ts';
import { LonghaulError } from '../contracts/error-codes.ts';
import { LIMITS } from '../contracts/limits.ts';

const schema = z.object({
  DATABASE_URL: z.string().min(1),
  LONGHAUL_GATEWAY_URL: z.url(),
  /** Where harnesses reach the api; unset: the gateway's, which is the same server under `longhaul dev`. */
  LONGHAUL_API_URL: z.url().optional(),
  LONGHAUL_HARNESS_HOLD_MS: z.coerce.number().int().min(0).max(600_000).default(LIMITS.harnessHoldMs),
  LONGHAUL_HOME: z.string().min(1).default('.longhaul'),
  LONGHAUL_TASK_QUEUE: z.string().min(1).default('longhaul'),
  LONGHAUL_LOG_LEVEL: z.enum(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent']).default('info'),
  /** Names this build for Temporal's worker versioning; unset: unversioned. */
  LONGHAUL_BUILD_ID: z.string().min(1).optional(),
  LONGHAUL_MAX_ACTIVITIES: z.coerce.number().int().min(1).max(1_000).default(100),
  /** What programs in sandboxes trust; the egress broker makes it. */
  LONGHAUL_SANDBOX_ROOTFS_DIR: z.string().optional(),
  LONGHAUL_EGRESS_TRUST_BUNDLE: z.string().min(1).optional(),
  LONGHAUL_MAINTENANCE_EVERY_MS: z.coerce.number().int().min(10_000).default(300_000),
});

export interface WorkerConfig {
  databaseUrl: string;
  temporal: TemporalTarget;
  gatewayUrl: string;
  apiUrl: string;
  harnessHoldMs: number;
  home: string;
  sandboxRoot: string;
  /** Root file systems that environments may name as `image`. */
  rootfsDir: string | undefined;
  sandboxOwner: string;
  daytona?: DaytonaOptions | undefined;
  docker?: DockerOptions | undefined;
  kubernetes?: KubernetesOptions | undefined;
  taskQueue: string;
  logLevel: string;
  buildId: string | undefined;
  maxActivities: number;
  maintenanceEveryMs: number;
  egress: EgressClientConfig | null;
  trustBundleFile: string;
  e2b?: E2bOptions | undefined;
}

/** Reads the worker's configuration; throws an error that names the variable. */
export function readConfig(env: NodeJS.ProcessEnv = process.env): WorkerConfig {
  const parsed = schema.safeParse(env);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw new LonghaulError('setup_required', issue?.message ?? 'invalid', {
      field: issue?.path.join('.') ?? 'env',
    });
  }
  const home = path.resolve(parsed.data.LONGHAUL_HOME);
  return {
    databaseUrl: parsed.data.DATABASE_URL,
    temporal: readTemporalTarget(env),
    gatewayUrl: parsed.data.LONGHAUL_GATEWAY_URL.replace(/\/+$/, ''),
    apiUrl: (parsed.data.LONGHAUL_API_URL ?? parsed.data.LONGHAUL_GATEWAY_URL).replace(/\/+$/, ''),
    harnessHoldMs: parsed.data.LONGHAUL_HARNESS_HOLD_MS,
    home,
    sandboxRoot: path.join(home, 'sandboxes'),
    rootfsDir: parsed.data.LONGHAUL_SANDBOX_ROOTFS_DIR,
    // Sandboxes of the local provider belong to one home on one host.
    sandboxOwner: `${hostname()}:${home}`,
    daytona: readDaytonaConfig(env),
    docker: readDockerOptions(env),
    kubernetes: readKubernetesConfig(env),
    taskQueue: parsed.data.LONGHAUL_TASK_QUEUE,
    logLevel: parsed.data.LONGHAUL_LOG_LEVEL,
    buildId: parsed.data.LONGHAUL_BUILD_ID,
    maxActivities: parsed.data.LONGHAUL_MAX_ACTIVITIES,
    maintenanceEveryMs: parsed.data.LONGHAUL_MAINTENANCE_EVERY_MS,
    egress: egressClientConfig(env),
    trustBundleFile: path.resolve(
      parsed.data.LONGHAUL_EGRESS_TRUST_BUNDLE ?? path.join(home, 'egress', 'trust-bundle.pem'),
    ),
    e2b: readE2bConfig(env),
  };
}
