import { z } from 'zod';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import type { DockerOptions } from './provider.ts';

const schema = z.object({
  /** Whoever may use the engine may become root of its machine: sandboxes there are asked for, never assumed. */
  LONGHAUL_DOCKER_HOST: z
    .string()
    .regex(/^(unix:\/\/\/|tcp:\/\/.)/, 'must be unix:///path or tcp://host:port')
    .optional(),
  LONGHAUL_DOCKER_CERT_PATH: z.string().min(1).optional(),
  LONGHAUL_DOCKER_IMAGE: z.string().min(1).default('buildpack-deps:bookworm'),
  LONGHAUL_DOCKER_PULL: z.enum(['always', 'missing', 'never']).default('missing'),
  LONGHAUL_DOCKER_USER: z
    .string()
    .regex(/^[1-9]\d*:\d+$/, 'must be uid:gid in numbers, not root')
    .default('1000:1000'),
  LONGHAUL_DOCKER_RUNTIME: z.string().min(1).optional(),
  LONGHAUL_DOCKER_SECCOMP_FILE: z.string().min(1).optional(),
  LONGHAUL_DOCKER_STORAGE_QUOTA: z.enum(['0', '1']).default('0'),
});

/** Undefined where no engine is named: then there are no docker sandboxes. */
export function readDockerOptions(env: NodeJS.ProcessEnv = process.env): DockerOptions | undefined {
  const parsed = schema.safeParse(env);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw new LonghaulError('setup_required', issue?.message ?? 'invalid', { field: issue?.path.join('.') ?? 'env' });
  }
  const { data } = parsed;
  if (data.LONGHAUL_DOCKER_HOST === undefined) return undefined;
  return {
    host: data.LONGHAUL_DOCKER_HOST,
    image: data.LONGHAUL_DOCKER_IMAGE,
    pull: data.LONGHAUL_DOCKER_PULL,
    user: data.LONGHAUL_DOCKER_USER,
    storageQuota: data.LONGHAUL_DOCKER_STORAGE_QUOTA === '1',
    ...(data.LONGHAUL_DOCKER_CERT_PATH === undefined ? {} : { certFolder: data.LONGHAUL_DOCKER_CERT_PATH }),
    ...(data.LONGHAUL_DOCKER_RUNTIME === undefined ? {} : { runtime: data.LONGHAUL_DOCKER_RUNTIME }),
    ...(data.LONGHAUL_DOCKER_SECCOMP_FILE === undefined ? {} : { seccompFile: data.LONGHAUL_DOCKER_SECCOMP_FILE }),
  };
}
