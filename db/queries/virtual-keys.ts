import { createHash, randomBytes } from 'node:crypto';
import type { Attribution } from '../../contracts/attribution.ts';
import { newId } from '../../contracts/ids.ts';
import { LIMITS } from '../../contracts/limits.ts';
import type { Queryable } from '../pool.ts';
import { putKeyBudget } from './budgets.ts';
import { toCamel } from '../rows.ts';

/** Every virtual key starts with it, so that a key names its kind in logs of others and in secret scanners. */
export const VIRTUAL_KEY_PREFIX = 'lhv_';

/** What a virtual key is bound to: the gateway believes this, never a body or a header. */
export interface VirtualKeyRow {
  id: string;
  attribution: Attribution;
  /** null: every model; an entry may end with `*`. */
  allowedModels: string[] | null;
  maxParallel: number;
  expiresAt: Date;
  /** Calls belong to the turn of the session that runs; without one they are refused. */
  followsTurn: boolean;
}

export interface VirtualKeyDraft {
  teamId: string;
  userId: string;
  sessionId?: string;
  threadId?: string;
  /** The key ends with this turn of the session. */
  turn?: number;
  /** For a harness, which is given one key for all its turns. */
  followsTurn?: boolean;
  agentId?: string;
  agentVersion?: number;
  allowedModels?: string[];
  /** What all calls under the key may cost together. */
  budgetMicros?: number;
  /** Default: LIMITS.virtualKeyParallel. */
  maxParallel?: number;
  /** Default: LIMITS.virtualKeyTtlMs. */
  ttlMs?: number;
}

/** Makes a key of 256 random bits. The key itself is returned once and never stored. */
export async function mintVirtualKey(db: Queryable, draft: VirtualKeyDraft): Promise<{ id: string; key: string }> {
  const id = newId('virtualKey');
  const key = VIRTUAL_KEY_PREFIX + randomBytes(32).toString('base64url');
  // Before the key: no call may find the key without its limit.
  if (draft.budgetMicros !== undefined) {
    await putKeyBudget(db, { id, teamId: draft.teamId, createdBy: draft.userId }, draft.budgetMicros);
  }
  await db.query(
    `INSERT INTO virtual_keys (id, key_hash, team_id, user_id, session_id, agent_id, agent_version, allowed_models,
       max_parallel, expires_at, thread_id, turn, follows_turn)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, now() + make_interval(secs => $10 / 1000.0), $11, $12, $13)`,
    [
      id,
      hashOf(key),
      draft.teamId,
      draft.userId,
      draft.sessionId ?? null,
      draft.agentId ?? null,
      draft.agentVersion ?? null,
      draft.allowedModels === undefined ? null : JSON.stringify(draft.allowedModels),
      draft.maxParallel ?? LIMITS.virtualKeyParallel,
      draft.ttlMs ?? LIMITS.virtualKeyTtlMs,
      draft.threadId ?? null,
      draft.turn ?? null,
      draft.followsTurn ?? false,
    ],
  );
  return { id, key };
}

/** The row of a key that is neither revoked nor expired and whose session, or turn, still goes on. */
export async function findVirtualKey(db: Queryable, key: string): Promise<VirtualKeyRow | undefined> {
  const result = await db.query<Record<string, unknown>>(
    `SELECT k.id, k.team_id, k.user_id, k.id AS key_id, k.session_id,
       coalesce(s.root_session_id, k.session_id) AS root_session_id, k.thread_id, k.agent_id, k.agent_version,
       s.deployment_id, s.agent ->> 'harness' AS harness, NULL AS runtime, s.repo,
       coalesce(s.labels, '[]') AS labels, s.trigger,
       k.allowed_models, k.max_parallel, k.expires_at, k.follows_turn
     FROM virtual_keys k LEFT JOIN sessions s ON s.id = k.session_id
       LEFT JOIN turns t ON t.session_id = k.session_id AND t.turn = k.turn
     WHERE k.key_hash = $1 AND k.revoked_at IS NULL AND k.expires_at > now()
       AND (s.id IS NULL OR (s.status <> 'terminated' AND s.deleted_at IS NULL))
       AND (k.turn IS NULL OR t.state = 'running')`,
    [hashOf(key)],
  );
  const row = result.rows[0];
  if (row === undefined) return undefined;
  const { id, allowedModels, maxParallel, expiresAt, followsTurn, ...attribution } = toCamel<
    Omit<VirtualKeyRow, 'attribution'> & Attribution
  >(row);
  return { id, attribution, allowedModels, maxParallel, expiresAt, followsTurn };
}

/** Ends every key of a session; a second call changes nothing. Returns how many were ended. */
export async function revokeSessionKeys(db: Queryable, sessionId: string): Promise<number> {
  const result = await db.query(
    'UPDATE virtual_keys SET revoked_at = now() WHERE session_id = $1 AND revoked_at IS NULL',
    [sessionId],
  );
  return result.rowCount ?? 0;
}

/** Ends the keys of one turn; those of the whole session stay. */
export async function revokeTurnKeys(tx: Queryable, sessionId: string, turn: number): Promise<void> {
  await tx.query(
    'UPDATE virtual_keys SET revoked_at = now() WHERE session_id = $1 AND turn = $2 AND revoked_at IS NULL',
    [sessionId, turn],
  );
}

function hashOf(key: string): Buffer {
  return createHash('sha256').update(key).digest();
}
