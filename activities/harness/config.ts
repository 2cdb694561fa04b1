import os from 'node:os';
import path from 'node:path';

export interface HarnessConfig {
  /** Where harnesses are installed, shared by all checkouts and stacks of a user. */
  installDir: string;
}

/** Where the programs of harnesses are. */
export function readHarnessConfig(env: NodeJS.ProcessEnv = process.env): HarnessConfig {
  const value = (name: string): string | undefined => (env[name] === '' ? undefined : env[name]);
  const cache = value('XDG_CACHE_HOME') ?? path.join(os.homedir(), '.cache');
  return { installDir: path.resolve(value('LONGHAUL_HARNESS_DIR') ?? path.join(cache, 'longhaul', 'harness')) };
}
