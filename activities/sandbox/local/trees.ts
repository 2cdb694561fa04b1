import { existsSync } from 'node:fs';
import { chmod, readdir, rm } from 'node:fs/promises';

/** Supervisors may still write their last word, and the sandboxed code may have locked its folders. */
export async function removeTree(dir: string): Promise<void> {
  for (let tries = 0; existsSync(dir); tries += 1) {
    try {
      await rm(dir, { recursive: true, force: true, maxRetries: 3, retryDelay: 10 });
    } catch (error) {
      if (tries >= 5) throw error;
      await unlock(dir);
    }
  }
}

async function unlock(dir: string): Promise<void> {
  try {
    await chmod(dir, 0o700);
    for (const entry of await readdir(dir, { withFileTypes: true })) {
      if (entry.isDirectory()) await unlock(`${dir}/${entry.name}`);
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}
