import { LonghaulError } from '../../contracts/error-codes.ts';
import { LIMITS } from '../../contracts/limits.ts';
import type { SandboxProvider, SandboxRef } from '../sandbox/port.ts';

/** Where a session puts what is to stay. */
export const OUTPUTS = '/mnt/session/outputs';
const MAX_DEPTH = 8;
/** Paths told as skipped; beyond them only that there were more. */
const MAX_SKIPPED = 20;

export interface FoundOutput {
  /** Below the folder of outputs. */
  path: string;
  sizeBytes: number;
  /** Changes when the file does. */
  mark: string;
}

export interface Skipped {
  path: string;
  reason: string;
}

/** Regular files below the folder of outputs, by name, at most `artifactsPerSession`. Links are not followed. */
export async function findOutputs(
  provider: SandboxProvider,
  ref: SandboxRef,
  signal: AbortSignal,
): Promise<{ outputs: FoundOutput[]; skipped: Skipped[] }> {
  const outputs: FoundOutput[] = [];
  const skipped: Skipped[] = [];
  const skip = (path: string, reason: string): void => {
    if (skipped.length < MAX_SKIPPED) skipped.push({ path, reason });
  };
  const folders: { path: string; depth: number }[] = [{ path: '', depth: 0 }];
  for (let folder = folders.shift(); folder !== undefined; folder = folders.shift()) {
    signal.throwIfAborted();
    for (const entry of await entriesOf(provider, ref, folder.path, signal)) {
      const path = folder.path === '' ? entry.name : `${folder.path}/${entry.name}`;
      if (!isStorable(path)) skip(JSON.stringify(path).slice(0, 200), 'its name cannot be stored');
      else if (entry.type === 'symlink' || entry.type === 'other') skip(path, 'not a regular file');
      else if (entry.type === 'file' && outputs.length === LIMITS.artifactsPerSession) {
        skip(path, `more than ${LIMITS.artifactsPerSession} outputs`);
        return { outputs, skipped };
      } else if (entry.type === 'file') {
        outputs.push({ path, sizeBytes: entry.sizeBytes, mark: `${entry.sizeBytes}:${entry.mtimeMs}` });
      } else if (folder.depth + 1 >= MAX_DEPTH) skip(path, `more than ${MAX_DEPTH} folders deep`);
      else if (folders.length < LIMITS.artifactsPerSession) folders.push({ path, depth: folder.depth + 1 });
      else skip(path, 'too many folders');
    }
  }
  return { outputs, skipped };
}

interface Entry {
  name: string;
  type: 'file' | 'directory' | 'symlink' | 'other';
  sizeBytes: number;
  mtimeMs: number;
}

/** A folder that is gone, or never was, is empty. */
async function entriesOf(
  provider: SandboxProvider,
  ref: SandboxRef,
  path: string,
  signal: AbortSignal,
): Promise<Entry[]> {
  try {
    const found = await provider.listDir(ref, path === '' ? OUTPUTS : `${OUTPUTS}/${path}`, signal);
    return found
      .map((stat) => ({ ...stat, name: stat.path.split('/').at(-1) ?? '' }))
      .toSorted((a, b) => (a.name < b.name ? -1 : 1));
  } catch (error) {
    if (error instanceof LonghaulError && error.code === 'sandbox_invalid') return [];
    throw error;
  }
}

function isStorable(path: string): boolean {
  // eslint-disable-next-line no-control-regex
  // A name whose bytes are no UTF-8 arrives with replacement characters.
  return path.length <= 1_024 && !/[\p{Control}\p{Surrogate}\ufffd]/u.test(path);
}
