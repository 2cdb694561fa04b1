import { mkdir, readFile, rename, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { LonghaulError } from '../../../contracts/error-codes.ts';

const MAX_BYTES = 16 * 1024 * 1024;
const SESSIONS = 'sessions';

/** Where a thread's only file is, below `CODEX_HOME`. */
export function rolloutName(home: string, rolloutPath: string): string {
  const name = path.relative(home, rolloutPath);
  if (!isRolloutName(name)) throw new LonghaulError('harness_invalid', 'codex keeps its sessions at an unknown place');
  return name;
}

/** The thread's file, or null when it has none yet or a larger one than may be kept. */
export async function readRollout(home: string, name: string): Promise<Uint8Array | null> {
  const file = path.join(home, name);
  try {
    const { size } = await stat(file);
    return size > MAX_BYTES ? null : await readFile(file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}

export async function writeRollout(home: string, name: string, state: Uint8Array): Promise<void> {
  if (!isRolloutName(name)) throw new LonghaulError('harness_invalid', 'not a session of codex', { field: 'token' });
  if (state.byteLength > MAX_BYTES) throw new LonghaulError('harness_invalid', 'at most 16 MiB', { field: 'state' });
  const file = path.join(home, name);
  await mkdir(path.dirname(file), { recursive: true, mode: 0o700 });
  const aside = `${file}.new`;
  await writeFile(aside, state, { mode: 0o600 });
  await rename(aside, file);
}

/** A token comes from the database, yet a path out of the folder would be a file of somebody else. */
function isRolloutName(name: string): boolean {
  return (
    name === path.normalize(name) && name.startsWith(`${SESSIONS}${path.sep}`) && /\/rollout-[\w-]+\.jsonl$/.test(name)
  );
}
