import { open, readdir, realpath } from 'node:fs/promises';
import path from 'node:path';
import { LIMITS } from '../../contracts/limits.ts';
import { versionOf } from './env.ts';
import { away, fieldOf, notThere, teamPrefix, type BackendRef, type BackendSecret, type VaultBackend } from './port.ts';

/**
 * Files below a folder of the team, as orchestrators mount secrets. Read at each ask, so a changed file is a new value; a
 * file of JSON has fields.
 */
export class FileBackend implements VaultBackend {
  readonly name = 'file';
  readonly #root: string;

  /** `root` may hold `{team}`; without it all teams share the folder. */
  constructor(root: string) {
    this.#root = root;
  }

  async get(ref: BackendRef): Promise<BackendSecret> {
    const text = await this.#read(ref);
    if (ref.field === null) return { value: text, version: versionOf(text), expiresAtMs: null };
    const value = fieldOf(jsonOf(text) ?? {}, ref);
    if (value === undefined) throw notThere(this.name, `${ref.path}#${ref.field}`);
    return { value, version: versionOf(text), expiresAtMs: null };
  }

  async list(teamId: string, limit: number): Promise<string[]> {
    const root = teamPrefix(this.#root, teamId);
    const found = await readdir(root, { recursive: true, withFileTypes: true }).catch(() => []);
    return found
      .filter((entry) => entry.isFile())
      .map((entry) => path.relative(root, path.join(entry.parentPath, entry.name)))
      .toSorted((a, b) => (a < b ? -1 : 1))
      .slice(0, limit);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  async #read(ref: BackendRef): Promise<string> {
    const root = teamPrefix(this.#root, ref.teamId);
    const file = path.join(root, ref.path);
    try {
      // A link inside the folder, as Kubernetes makes them, may not lead out of it.
      const [realRoot, realFile] = await Promise.all([realpath(root), realpath(file)]);
      if (!realFile.startsWith(realRoot + path.sep)) throw notThere(this.name, ref.path);
      const handle = await open(realFile);
      try {
        const { buffer, bytesRead } = await handle.read(
          Buffer.alloc(LIMITS.vaultAnswerBytes),
          0,
          LIMITS.vaultAnswerBytes,
          0,
        );
        return buffer.toString('utf8', 0, bytesRead).replace(/\r?\n$/, '');
      } finally {
        await handle.close();
      }
    } catch (error) {
      const code = (error as { code?: unknown }).code;
      if (code === 'ENOENT' || code === 'ENOTDIR' || code === 'EISDIR' || code === 'not_found')
        throw notThere(this.name, ref.path);
      throw away(this.name, `${ref.path} cannot be read (${typeof code === 'string' ? code : 'unknown'})`);
    }
  }
}

function jsonOf(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
