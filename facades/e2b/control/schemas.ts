import { z } from 'zod';
import { LIMITS } from '../../../contracts/limits.ts';

const seconds = z
  .number()
  .int()
  .min(0)
  .max(LIMITS.e2bTimeoutMaxMs / 1_000);
const bounded = z.string().max(LIMITS.e2bMetadataChars);

const metadata = z
  .record(bounded.min(1), bounded)
  .refine((value) => Object.keys(value).length <= LIMITS.e2bMetadataPairs, 'has too many entries');

const environment = z
  .record(
    z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/),
    z.string().refine((text) => !text.includes('\0')),
  )
  .refine((value) => Object.keys(value).length <= LIMITS.e2bEnvironmentVariables, 'has too many entries')
  .refine((value) => JSON.stringify(value).length <= LIMITS.e2bEnvironmentBytes, 'is too large');

const hosts = z.array(z.string().min(1).max(253)).max(1_000);

/** What E2B's own egress does and ours does not do for these sandboxes. */
const foreign = (what: string) =>
  z.undefined({ error: `Longhaul does not do ${what} for sandboxes made by E2B programs` });

const network = z.object({
  allowOut: hosts.nullish(),
  denyOut: hosts.nullish(),
  allowPublicTraffic: z.boolean().nullish(),
  maskRequestHost: z.string().max(253).nullish(),
  httpsPorts: z.array(z.number().int().min(1).max(65_535)).max(100).nullish(),
  rules: foreign('request rules')
    .or(z.record(z.string(), z.array(z.unknown()).max(0)))
    .optional(),
  egressProxy: foreign('egress proxies').optional(),
});

export const createBody = z.object({
  templateID: z.string().min(1).max(256),
  metadata: metadata.nullish(),
  envVars: environment.nullish(),
  timeout: seconds.nullish(),
  autoPause: z.boolean().nullish(),
  autoPauseMemory: z.boolean().nullish(),
  autoResume: z.object({ enabled: z.boolean() }).nullish(),
  secure: z.boolean().nullish(),
  allow_internet_access: z.boolean().nullish(),
  network: network.nullish(),
  iam: foreign('workload tokens').optional(),
  volumeMounts: z.array(z.unknown()).max(0, 'Longhaul has no volumes').nullish(),
});

export const connectBody = z.object({ timeout: seconds.nullish(), memory: z.boolean().nullish() });
export const resumeBody = z.object({ timeout: seconds.nullish(), autoPause: z.boolean().nullish() });
export const timeoutBody = z.object({ timeout: seconds });
export const refreshBody = z.object({ duration: seconds.nullish() });
export const pauseBody = z.object({ memory: z.boolean().nullish() });
export const networkBody = network.extend({ allow_internet_access: z.boolean().nullish() });
export const snapshotBody = z.object({ name: z.string().min(1).max(128).nullish() });

const state = z.enum(['running', 'paused']);
const states = z
  .string()
  .transform((text) => text.split(',').filter((each) => each !== ''))
  .pipe(z.array(state).max(10));

/** Each key and value is percent-encoded once more inside, then the whole as one query value. */
const metadataQuery = z
  .string()
  .max(16 * 1024)
  .transform((text, context) => {
    try {
      const pairs = [...new URLSearchParams(text)];
      return Object.fromEntries(pairs.map((pair) => pair.map((each) => decodeURIComponent(each)) as [string, string]));
    } catch {
      context.addIssue('is not encoded as the SDKs do');
      return z.NEVER;
    }
  });

export const listQuery = z.object({
  metadata: metadataQuery.optional(),
  state: states.optional(),
  startedAfter: z.iso.datetime({ offset: true }).optional(),
  template: z.string().max(256).optional(),
  order: z.enum(['asc', 'desc']).optional(),
  limit: z.coerce.number().int().min(1).max(LIMITS.e2bPageSize).optional(),
  nextToken: z.string().max(512).optional(),
});

export const snapshotsQuery = z.object({
  sandboxID: z.string().max(64).optional(),
  name: z.string().max(128).optional(),
  limit: z.coerce.number().int().min(1).max(LIMITS.e2bPageSize).optional(),
  nextToken: z.string().max(512).optional(),
});
