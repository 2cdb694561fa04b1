import { execFile } from 'node:child_process';
import { accessSync, constants, statSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { bareEnvironment, inheritedEnvironment } from '../config.ts';

/** The Temporal CLI this project is tested with. */
export const TEMPORAL_VERSION = '1.8.2';
const OLDEST_SERVER = [1, 29, 1] as const;

export interface TemporalBinary {
  path: string;
  serverVersion: string;
  source: 'TEMPORAL_CLI' | 'PATH' | 'cache' | 'download' | 'go build' | 'go install';
}

interface Locations {
  temporalCli: string | undefined;
  cacheDir: string;
}

/** Where setup puts the binary, so every checkout of this user shares it. */
export function cachedBinaryPath(cacheDir: string): string {
  return path.join(cacheDir, 'temporal', `temporal-${TEMPORAL_VERSION}`);
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return statSync(file).isFile();
  } catch {
    return false;
  }
}

/** A busy machine takes its time over a program of a hundred megabytes, and one that was given up counts as none. */
const VERSION_MS = 60_000;

/** Version of the server inside a Temporal CLI, or null when the file is no such thing. */
export async function serverVersionOf(file: string): Promise<string | null> {
  try {
    const { stdout } = await promisify(execFile)(file, ['--version'], { timeout: VERSION_MS, env: bareEnvironment() });
    return /Server (\d+\.\d+\.\d+)/.exec(stdout)?.[1] ?? null;
  } catch {
    return null;
  }
}

function isNewEnough(version: string): boolean {
  const parts = version.split('.').map(Number);
  for (const [index, oldest] of OLDEST_SERVER.entries()) {
    const part = parts[index] ?? 0;
    if (part !== oldest) return part > oldest;
  }
  return true;
}

function findOnPath(name: string): string[] {
  const folders = (inheritedEnvironment()['PATH'] ?? '').split(path.delimiter).filter((folder) => folder !== '');
  return folders.map((folder) => path.join(folder, name)).filter(isExecutable);
}

/** The first usable Temporal CLI: TEMPORAL_CLI, then PATH, then the cache. Null when there is none yet. */
export async function findTemporal(locations: Locations): Promise<TemporalBinary | null> {
  if (locations.temporalCli !== undefined) {
    const serverVersion = await serverVersionOf(locations.temporalCli);
    if (serverVersion === null || !isNewEnough(serverVersion)) {
      throw new LonghaulError(
        'setup_required',
        `TEMPORAL_CLI=${locations.temporalCli} is no Temporal CLI with server ${OLDEST_SERVER.join('.')} or newer`,
      );
    }
    return { path: locations.temporalCli, serverVersion, source: 'TEMPORAL_CLI' };
  }
  for (const file of findOnPath('temporal')) {
    const serverVersion = await serverVersionOf(file);
    if (serverVersion !== null && isNewEnough(serverVersion)) return { path: file, serverVersion, source: 'PATH' };
  }
  const cached = cachedBinaryPath(locations.cacheDir);
  if (!isExecutable(cached)) return null;
  const serverVersion = await serverVersionOf(cached);
  return serverVersion === null ? null : { path: cached, serverVersion, source: 'cache' };
}

/** Like `findTemporal`, or an error that names every way to get one. */
export async function requireTemporal(locations: Locations): Promise<TemporalBinary> {
  const found = await findTemporal(locations);
  if (found !== null) return found;
  throw new LonghaulError('setup_required', `No Temporal server found. ${TEMPORAL_OPTIONS}`);
}

/** Said wherever the binary is missing. */
export const TEMPORAL_OPTIONS = [
  'Any of these helps:',
  '  - run `longhaul setup`: it downloads the Temporal CLI, or builds it with Go 1.26.4 or newer',
  '  - install the Temporal CLI (https://docs.temporal.io/cli) so that `temporal` is on PATH',
  '  - set TEMPORAL_CLI to the path of a Temporal CLI',
  '  - set TEMPORAL_ADDRESS to a Temporal server that runs already',
].join('\n');
