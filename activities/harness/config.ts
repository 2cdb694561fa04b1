import os from 'node:os';
import path from 'node:path';
import { LonghaulError } from '../../contracts/error-codes.ts';

export interface HarnessConfig {
  /** Where harnesses are installed, shared by all checkouts and stacks of a user. */
  installDir: string;
  /** A harness's server that no session uses for so long ends. */
  idleMs: number;
}

const IDLE_MS = 15 * 60_000;

/** Where the programs of harnesses are. */
export function readHarnessConfig(env: NodeJS.ProcessEnv = process.env): HarnessConfig {
  const value = (name: string): string | undefined => (env[name] === '' ? undefined : env[name]);
  const cache = value('XDG_CACHE_HOME') ?? path.join(os.homedir(), '.cache');
  const idleMs = Number(value('LONGHAUL_HARNESS_IDLE_MS') ?? IDLE_MS);
  if (!Number.isInteger(idleMs) || idleMs < 1_000) {
    throw new LonghaulError('setup_required', 'must be a number of milliseconds, at least 1000', {
      field: 'LONGHAUL_HARNESS_IDLE_MS',
    });
  }
  return { installDir: path.resolve(value('LONGHAUL_HARNESS_DIR') ?? path.join(cache, 'longhaul', 'harness')), idleMs };
}
