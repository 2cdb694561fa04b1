import { z } from 'zod';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import type { DaytonaOptions } from './provider.ts';

const MINUTE_MS = 60_000;
const PAIR = /^([A-Za-z_][A-Za-z0-9_]*)=([A-Za-z0-9_.-]{1,128})$/;

const schema = z.object({
  DAYTONA_API_KEY: z.string().min(1).optional(),
  DAYTONA_API_URL: z.url().optional(),
  DAYTONA_TARGET: z.string().min(1).optional(),
  LONGHAUL_DAYTONA_MEMORY_PAUSE: z.enum(['true', 'false']).default('false'),
  LONGHAUL_DAYTONA_TTL_MINUTES: z.coerce.number().int().min(60).max(525_600).optional(),
  LONGHAUL_DAYTONA_SECRETS: z.string().default(''),
});

/** The account this worker uses; undefined without a key. Throws an error that names the variable. */
export function readDaytonaConfig(env: NodeJS.ProcessEnv = process.env): DaytonaOptions | undefined {
  const given = Object.fromEntries(Object.entries(env).filter(([, value]) => value !== ''));
  const parsed = schema.safeParse(given);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw new LonghaulError('setup_required', issue?.message ?? 'invalid', { field: issue?.path.join('.') ?? 'env' });
  }
  const { data } = parsed;
  if (data.DAYTONA_API_KEY === undefined) return undefined;
  return {
    apiKey: data.DAYTONA_API_KEY,
    ...(data.DAYTONA_API_URL === undefined ? {} : { apiUrl: data.DAYTONA_API_URL.replace(/\/+$/, '') }),
    ...(data.DAYTONA_TARGET === undefined ? {} : { target: data.DAYTONA_TARGET }),
    ...(data.LONGHAUL_DAYTONA_TTL_MINUTES === undefined
      ? {}
      : { maxIdleMs: data.LONGHAUL_DAYTONA_TTL_MINUTES * MINUTE_MS }),
    memoryPause: data.LONGHAUL_DAYTONA_MEMORY_PAUSE === 'true',
    secrets: secretsOf(data.LONGHAUL_DAYTONA_SECRETS),
  };
}

function secretsOf(text: string): Record<string, string> {
  const found: Record<string, string> = {};
  for (const each of text.split(',').filter((part) => part.trim() !== '')) {
    const [, name, secret] = PAIR.exec(each.trim()) ?? [];
    if (name === undefined || secret === undefined) {
      throw new LonghaulError('setup_required', 'is a list of VARIABLE=name-of-the-secret, separated by commas', {
        field: 'LONGHAUL_DAYTONA_SECRETS',
      });
    }
    found[name] = secret;
  }
  return found;
}
