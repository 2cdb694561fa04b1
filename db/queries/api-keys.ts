import { createHash, randomBytes } from 'node:crypto';
import { newId } from '../../contracts/ids.ts';
import type { Queryable } from '../pool.ts';
import { toCamel } from '../rows.ts';

/** Who a request is, as the key we minted says (invariant 12). */
export interface Principal {
  id: string;
  userId: string;
  teamId: string;
}

/** Mints a key. The key itself is returned once and never stored. */
export async function createApiKey(
  db: Queryable,
  owner: { name: string; userId: string; teamId: string },
): Promise<{ id: string; key: string }> {
  const id = newId('apiKey');
  const key = `lhk_${randomBytes(32).toString('base64url')}`;
  await db.query(
    'INSERT INTO api_keys (id, name, key_hash, prefix, user_id, team_id) VALUES ($1, $2, $3, $4, $5, $6)',
    [id, owner.name, hashKey(key), key.slice(0, 12), owner.userId, owner.teamId],
  );
  return { id, key };
}

/** The owner of a key that is neither revoked nor expired. */
export async function findApiKey(db: Queryable, key: string): Promise<Principal | undefined> {
  const result = await db.query(
    `SELECT id, user_id, team_id FROM api_keys
     WHERE key_hash = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())`,
    [hashKey(key)],
  );
  return result.rows[0] === undefined ? undefined : toCamel<Principal>(result.rows[0] as object);
}

/** True when somebody could authenticate; a server without keys must not be reachable from outside. */
export async function anyApiKey(db: Queryable): Promise<boolean> {
  const result = await db.query('SELECT 1 FROM api_keys WHERE revoked_at IS NULL LIMIT 1');
  return result.rows.length > 0;
}

function hashKey(key: string): Buffer {
  return createHash('sha256').update(key).digest();
}
