import { LIMITS } from '../contracts/limits.ts';
import type { Pool } from '../db/pool.ts';
import { withTransaction } from '../db/pool.ts';
import {
  countByKey,
  endRotation,
  lockVersionsToRewrap,
  noteRewrapped,
  openRotation,
  putRewrapped,
  type VersionToRewrap,
} from '../db/queries/vault-keys.ts';
import type { KeyRing } from './key-ring.ts';
import { rewrap } from './open.ts';

export interface RotationResult {
  keyId: string;
  rewrapped: number;
  /** Versions whose key did not open; they are as they were. */
  failed: { credentialId: string; version: number; keyId: string }[];
  /** What is still under other keys, for example written meanwhile by a process with the old key. */
  left: { keyId: string; count: number }[];
}

/**
 * Brings every value under the current master key, some in each transaction. Killed anywhere, it is simply run again: what
 * is done is found by the key's id in the row. Several may run at once.
 */
export async function rotateMasterKey(
  pool: Pool,
  ring: KeyRing,
  onBatch: (done: number) => void = () => undefined,
): Promise<RotationResult> {
  const keyId = ring.current.id;
  const rotation = await openRotation(pool, keyId);
  const failed: RotationResult['failed'] = [];
  let rewrapped = 0;
  let after = { credentialId: '', version: 0 };
  for (;;) {
    const batch = await withTransaction(pool, async (tx) => {
      const rows = await lockVersionsToRewrap(tx, { keyId, after, limit: LIMITS.rewrapBatch });
      const broken: VersionToRewrap[] = [];
      for (const row of rows) {
        try {
          await putRewrapped(tx, { ...row, ...rewrap(ring, row, row) });
        } catch (error) {
          if ((error as { code?: unknown }).code !== 'credential_unavailable') throw error;
          broken.push(row);
        }
      }
      await noteRewrapped(tx, rotation.id, { rewrapped: rows.length - broken.length, failed: broken.length });
      return { rows, broken };
    });
    const last = batch.rows.at(-1);
    if (last === undefined) break;
    failed.push(
      ...batch.broken.map(({ credentialId, version, keyId: old }) => ({ credentialId, version, keyId: old })),
    );
    rewrapped += batch.rows.length - batch.broken.length;
    after = { credentialId: last.credentialId, version: last.version };
    onBatch(rewrapped);
  }
  const left = (await countByKey(pool)).filter((one) => one.keyId !== keyId);
  if (left.length === 0) await endRotation(pool, rotation.id);
  return { keyId, rewrapped, failed, left };
}
