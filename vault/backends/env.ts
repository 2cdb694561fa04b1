import { createHash } from 'node:crypto';
import { notThere, type BackendRef, type BackendSecret, type VaultBackend } from './port.ts';

/** Variables of the broker's environment that the operator gave to teams: `NAME@team`, or `NAME@*`. For development. */
export class EnvBackend implements VaultBackend {
  readonly name = 'env';
  readonly #env: Readonly<Record<string, string | undefined>>;
  readonly #allowed: ReadonlySet<string>;

  constructor(env: Readonly<Record<string, string | undefined>>, allowed: readonly string[]) {
    this.#env = env;
    this.#allowed = new Set(allowed);
  }

  get(ref: BackendRef): Promise<BackendSecret> {
    const value = this.#isAllowed(ref.path, ref.teamId) ? this.#env[ref.path] : undefined;
    if (value === undefined || ref.field !== null) return Promise.reject(notThere(this.name, ref.path));
    return Promise.resolve({ value, version: versionOf(value), expiresAtMs: null });
  }

  list(teamId: string, limit: number): Promise<string[]> {
    const names = [...this.#allowed].map((entry) => entry.slice(0, entry.indexOf('@')));
    return Promise.resolve(
      names.filter((name) => this.#isAllowed(name, teamId) && this.#env[name] !== undefined).slice(0, limit),
    );
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  #isAllowed(name: string, teamId: string): boolean {
    return this.#allowed.has(`${name}@${teamId}`) || this.#allowed.has(`${name}@*`);
  }
}

/** Tells one value from another without telling either. */
export function versionOf(value: string): string {
  return createHash('sha256').update('version').update(value).digest('hex').slice(0, 12);
}
