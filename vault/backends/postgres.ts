import type { SecretParts } from '../../contracts/credentials.ts';
import { LonghaulError } from '../../contracts/error-codes.ts';
import type { Pool, Queryable } from '../../db/pool.ts';
import { withTransaction } from '../../db/pool.ts';
import { findSealedCredential, type SealedCredential } from '../../db/queries/credential-secrets.ts';
import { listCredentialIds, lockCredential, replaceVersion } from '../../db/queries/credentials.ts';
import type { SealPlace } from '../envelope.ts';
import type { KeyRing } from '../key-ring.ts';
import { openParts } from '../open.ts';
import { sealParts } from '../seal.ts';
import { notThere, type BackendRef, type BackendSecret, type VaultBackend } from './port.ts';

/** The default back end: sealed rows of our own database. A path is a credential's id, a field a part of its secret. */
export class PostgresBackend implements VaultBackend {
  readonly name = 'postgres';
  readonly #pool: Pool;
  readonly #ring: KeyRing;

  constructor(pool: Pool, ring: KeyRing) {
    this.#pool = pool;
    this.#ring = ring;
  }

  async get(ref: BackendRef): Promise<BackendSecret> {
    const row = await this.#find(this.#pool, ref);
    const value = openAll(this.#ring, row)[partOf(ref, row)];
    if (value === undefined) throw notThere(this.name, ref.path);
    return { value, version: String(row.version), expiresAtMs: row.expiresAt?.getTime() ?? null };
  }

  /** The whole secret becomes this value. */
  async put(ref: BackendRef, value: string): Promise<{ version: string }> {
    return withTransaction(this.#pool, async (tx) => {
      await lockCredential(tx, ref.path);
      const row = await this.#find(tx, ref);
      const version = row.version + 1;
      await replaceVersion(tx, row.id, {
        version,
        value: sealParts(this.#ring, { ...placeOf(row), version }, { value }),
        secretRef: null,
        expiresAt: null,
        createdBy: 'vault',
        spec: { ...row.spec, parts: { value: version } },
      });
      return { version: String(version) };
    });
  }

  list(teamId: string, limit: number): Promise<string[]> {
    return listCredentialIds(this.#pool, teamId, limit);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  async #find(db: Queryable, ref: BackendRef): Promise<SealedCredential> {
    const row = await findSealedCredential(db, ref.path);
    if (row === undefined || row.teamId !== ref.teamId) throw notThere(this.name, ref.path);
    return row;
  }
}

function partOf(ref: BackendRef, row: SealedCredential): keyof SecretParts {
  if (ref.field !== null) return ref.field as keyof SecretParts;
  return row.kind === 'mcp_oauth' ? 'access_token' : 'value';
}

/** All parts of a secret, each from the version that has it. */
export function openAll(ring: KeyRing, row: SealedCredential): SecretParts {
  const versions = [...new Set(Object.values(row.spec.parts))];
  const opened = new Map(
    versions.map((version) => {
      const value = row.sealed.get(version);
      if (value === undefined) {
        throw new LonghaulError('credential_unavailable', `version ${version} of credential ${row.id} is gone`);
      }
      return [version, openParts(ring, { ...placeOf(row), version }, value)];
    }),
  );
  const parts: SecretParts = {};
  for (const [part, version] of Object.entries(row.spec.parts)) {
    const value = opened.get(version)?.[part as keyof SecretParts];
    if (value !== undefined) parts[part as keyof SecretParts] = value;
  }
  return parts;
}

export function placeOf(row: SealedCredential): SealPlace {
  return { teamId: row.teamId, vaultId: row.vaultId, credentialId: row.id, version: row.version };
}
