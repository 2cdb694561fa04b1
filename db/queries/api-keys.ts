import { createHash, randomBytes } from 'node:crypto';
import type { KeyCaching } from '../../contracts/caching.ts';
import { newId } from '../../contracts/ids.ts';
import { KEY_SCOPES, type KeyScope } from '../../contracts/key-scopes.ts';
import { Filter, selectPage, type Page, type PageRequest } from '../paging.ts';
import { requireRow, type Queryable } from '../pool.ts';
import { toCamel } from '../rows.ts';
import { putKeyBudget } from './budgets.ts';

/** Who a request is, as the key we minted says (invariant 12). */
export interface Principal {
  id: string;
  userId: string;
  teamId: string;
  /** The key has limits of its own: it must not make keys without them. */
  isLimited: boolean;
  /** Its model calls are limited to some models or an amount: it must not have others make them without that. */
  hasCallLimits: boolean;
}

/** A key that is neither revoked nor expired. */
export interface ApiKey extends Principal, KeyLimits {
  expiresAt: Date | null;
}

/** What the gateway holds a key to. */
export interface KeyLimits {
  scopes: readonly KeyScope[];
  /** null: every model; an entry may end with `*`. */
  allowedModels: readonly string[] | null;
  /** null: no limit. */
  maxParallel: number | null;
}

/** A key as its owner may see it: never the key itself. */
export interface ApiKeyRow extends KeyLimits {
  id: string;
  name: string;
  /** The first characters of the key, to tell keys apart. */
  prefix: string;
  userId: string;
  teamId: string;
  createdAt: Date;
  updatedAt: Date;
  expiresAt: Date | null;
  revokedAt: Date | null;
  /** null: nothing beyond what callers' agents say. */
  cache: KeyCaching | null;
  /** null: no limit of its own. */
  budgetMicros: number | null;
  /** Of its own limit. */
  spentMicros: number;
}

export interface ApiKeyFields extends Partial<KeyLimits> {
  name: string;
  expiresAt?: Date | null;
  cache?: KeyCaching;
  budgetMicros?: number | null;
}

export interface ApiKeyDraft extends ApiKeyFields {
  userId: string;
  teamId: string;
}

const OWN_POOL = `b.scope_kind = 'key' AND b.scope_id = api_keys.id AND b.is_managed AND b.archived_at IS NULL`;
const COLUMNS = `id, name, prefix, user_id, team_id, scopes, allowed_models, max_parallel, created_at, updated_at,
  expires_at, revoked_at, cache, (SELECT b.hard_limit_micros FROM budgets b WHERE ${OWN_POOL}) AS budget_micros,
  (SELECT coalesce(sum(w.spent_micros), 0)::bigint FROM budgets b JOIN budget_windows w ON w.budget_id = b.id
   WHERE ${OWN_POOL}) AS spent_micros`;

/** Mints a key. The key itself is returned once and never stored. */
export async function createApiKey(db: Queryable, draft: ApiKeyDraft): Promise<{ id: string; key: string }> {
  const id = newId('apiKey');
  // Before the key: no call may find the key without its limit.
  if (draft.budgetMicros !== undefined && draft.budgetMicros !== null) {
    await putKeyBudget(db, { id, teamId: draft.teamId, createdBy: draft.userId }, draft.budgetMicros);
  }
  const key = `lhk_${randomBytes(32).toString('base64url')}`;
  await db.query(
    `INSERT INTO api_keys (id, key_hash, prefix, user_id, team_id, name, scopes, allowed_models, max_parallel, expires_at,
       cache)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`,
    [id, hashKey(key), key.slice(0, 12), draft.userId, draft.teamId, ...values(draft)],
  );
  return { id, key };
}

/** Takes a key that exists elsewhere as one for model calls; a key that is known, also as revoked, stays as it is. */
export async function adoptApiKey(
  db: Queryable,
  key: string,
  owner: { name: string; userId: string; teamId: string },
): Promise<void> {
  await db.query(
    `INSERT INTO api_keys (id, key_hash, prefix, user_id, team_id, name, scopes)
     VALUES ($1, $2, 'adopted', $3, $4, $5, '["gateway"]') ON CONFLICT (key_hash) DO NOTHING`,
    [newId('apiKey'), hashKey(key), owner.userId, owner.teamId, owner.name],
  );
}

/** The owner and the limits of a key that is neither revoked nor expired. */
export async function findApiKey(db: Queryable, key: string): Promise<ApiKey | undefined> {
  const result = await db.query(
    `SELECT id, user_id, team_id, scopes, allowed_models, max_parallel, expires_at,
       allowed_models IS NOT NULL OR max_parallel IS NOT NULL OR expires_at IS NOT NULL OR jsonb_array_length(scopes) < 2
         OR EXISTS (SELECT 1 FROM budgets b WHERE ${OWN_POOL}) AS is_limited,
       allowed_models IS NOT NULL OR EXISTS (SELECT 1 FROM budgets b WHERE ${OWN_POOL}) AS has_call_limits
     FROM api_keys WHERE key_hash = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())`,
    [hashKey(key)],
  );
  return result.rows[0] === undefined ? undefined : toCamel<ApiKey>(result.rows[0] as object);
}

/** One key of the team. With `lock`, nobody else changes it until the transaction ends. */
export async function getApiKey(
  db: Queryable,
  teamId: string,
  id: string,
  options: { lock?: boolean } = {},
): Promise<ApiKeyRow> {
  const result = await db.query(
    `SELECT ${COLUMNS} FROM api_keys WHERE id = $1 AND team_id = $2 ${options.lock === true ? 'FOR UPDATE' : ''}`,
    [id, teamId],
  );
  return toCamel<ApiKeyRow>(requireRow(result.rows[0] as object | undefined, `key ${id}`));
}

/** Keys of a team, newest first. */
export async function listApiKeys(
  db: Queryable,
  where: { teamId: string; includeRevoked: boolean },
  page: PageRequest,
): Promise<Page<ApiKeyRow>> {
  const filter = new Filter().add('team_id = ?', where.teamId);
  if (!where.includeRevoked) filter.addFixed('revoked_at IS NULL');
  return selectPage<ApiKeyRow>(db, `SELECT ${COLUMNS} FROM api_keys`, filter, page);
}

/** Writes name and limits. */
export async function updateApiKey(tx: Queryable, before: ApiKeyRow, fields: Required<ApiKeyFields>): Promise<void> {
  const { id, teamId, userId } = before;
  if (fields.budgetMicros !== before.budgetMicros) {
    await putKeyBudget(tx, { id, teamId, createdBy: userId }, fields.budgetMicros);
  }
  await tx.query(
    `UPDATE api_keys SET name = $2, scopes = $3, allowed_models = $4, max_parallel = $5, expires_at = $6, cache = $7,
       updated_at = now()
     WHERE id = $1`,
    [id, ...values(fields)],
  );
}

/** Ends a key for good; false when it was ended before. */
export async function revokeApiKey(tx: Queryable, teamId: string, id: string): Promise<boolean> {
  const result = await tx.query(
    'UPDATE api_keys SET revoked_at = now(), updated_at = now() WHERE id = $1 AND team_id = $2 AND revoked_at IS NULL',
    [id, teamId],
  );
  return result.rowCount === 1;
}

/** True when somebody could authenticate; a server without keys must not be reachable from outside. */
export async function anyApiKey(db: Queryable): Promise<boolean> {
  const result = await db.query('SELECT 1 FROM api_keys WHERE revoked_at IS NULL LIMIT 1');
  return result.rows.length > 0;
}

function values(fields: ApiKeyFields): unknown[] {
  return [
    fields.name,
    JSON.stringify(fields.scopes ?? KEY_SCOPES),
    fields.allowedModels === undefined || fields.allowedModels === null ? null : JSON.stringify(fields.allowedModels),
    fields.maxParallel ?? null,
    fields.expiresAt ?? null,
    fields.cache === undefined || Object.keys(fields.cache).length === 0 ? null : JSON.stringify(fields.cache),
  ];
}

function hashKey(key: string): Buffer {
  return createHash('sha256').update(key).digest();
}
