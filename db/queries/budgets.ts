import type { Attribution } from '../../contracts/attribution.ts';
import type { BudgetPeriod, BudgetScope } from '../../contracts/budgets.ts';
import type { BudgetLimit } from '../../contracts/definitions.ts';
import { newId } from '../../contracts/ids.ts';
import type { Page, PageRequest } from '../paging.ts';
import { Filter, selectPage } from '../paging.ts';
import type { Queryable } from '../pool.ts';
import { requireRow } from '../pool.ts';
import { toCamel } from '../rows.ts';

/** Channel on which gateways hear of changed pools (`changed`) and of money that others need (a budget's id). */
export const BUDGETS_CHANNEL = 'longhaul_budgets';

/** What a person may set. */
export interface BudgetFields {
  name: string;
  hardLimitMicros: number | null;
  softLimitMicros: number | null;
  thresholds: number[];
  degradeTo: string | null;
  degradeAtPercent: number | null;
}

/** A pool of money. */
export interface BudgetRow extends BudgetFields {
  id: string;
  teamId: string;
  scopeKind: BudgetScope;
  scopeId: string;
  period: BudgetPeriod;
  isManaged: boolean;
  createdBy: string;
  createdAt: Date;
  updatedAt: Date;
  archivedAt: Date | null;
  /** The window of now; null for pools that count each session or call by itself. */
  windowKey: string | null;
  spentMicros: number;
  reservedMicros: number;
}

const FIELDS = 'name, hard_limit_micros, soft_limit_micros, thresholds, degrade_to, degrade_at_percent';
const MICROS_PER_CENT = 10_000;

/** `sessionId` is SQL: the session whose window is meant where a pool counts each session by itself. */
const select = (sessionId: string): string => `SELECT b.*, w.spent_micros, w.reserved_micros FROM (
    SELECT id, team_id, scope_kind, scope_id, period, is_managed, created_by, created_at, updated_at, archived_at, ${FIELDS},
      CASE period WHEN 'total' THEN 'total' WHEN 'month' THEN to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM')
        WHEN 'day' THEN to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD')
        WHEN 'session' THEN ${sessionId} END AS window_key
    FROM budgets
  ) b LEFT JOIN LATERAL (
    SELECT coalesce(sum(spent_micros), 0)::bigint AS spent_micros, coalesce(sum(reserved_micros), 0)::bigint AS reserved_micros
    FROM budget_windows WHERE budget_id = b.id AND window_key = b.window_key
  ) w ON true`;
const SELECT = select('NULL');

/** Pools a scope may have that one call belongs to. */
const POOLS_PER_CALL = 200;

/** The pools that pay for calls of this attribution, in the order in which they are locked. */
export async function listPoolsOf(db: Queryable, attribution: Attribution): Promise<BudgetRow[]> {
  const scopes = scopesOf(attribution);
  const result = await db.query(
    `SELECT b.* FROM (${select('$5::text')}) b JOIN unnest($1::text[], $2::text[]) AS s (kind, id)
       ON b.scope_kind = s.kind AND b.scope_id = s.id
     WHERE b.archived_at IS NULL AND (b.team_id = $3 OR b.scope_kind = 'org') ORDER BY b.id LIMIT $4`,
    [
      scopes.map(([kind]) => kind),
      scopes.map(([, id]) => id),
      attribution.teamId,
      POOLS_PER_CALL,
      attribution.rootSessionId,
    ],
  );
  return result.rows.map((row) => toCamel<BudgetRow>(row as object));
}

/** Scope id of the one pool kind that has no ids. */
export const ORG_SCOPE_ID = '*';

function scopesOf(attribution: Attribution): [BudgetScope, string][] {
  const scopes: [BudgetScope, string | null][] = [
    ['org', ORG_SCOPE_ID],
    ['team', attribution.teamId],
    ['user', attribution.userId],
    ['agent', attribution.agentId],
    ['deployment', attribution.deploymentId],
    ['session', attribution.sessionId],
    ['root_session', attribution.rootSessionId],
    ['repo', attribution.repo],
    ['key', attribution.keyId],
    ...attribution.labels.map((label): [BudgetScope, string] => ['label', label]),
  ];
  return scopes.filter((scope): scope is [BudgetScope, string] => scope[1] !== null);
}

export interface BudgetDraft extends BudgetFields {
  teamId: string;
  scopeKind: BudgetScope;
  scopeId: string;
  period: BudgetPeriod;
  createdBy: string;
}

export async function insertBudget(tx: Queryable, draft: BudgetDraft): Promise<BudgetRow> {
  const id = newId('budget');
  await tx.query(
    `INSERT INTO budgets (${FIELDS}, id, team_id, scope_kind, scope_id, period, created_by)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`,
    [...values(draft), id, draft.teamId, draft.scopeKind, draft.scopeId, draft.period, draft.createdBy],
  );
  await tellChange(tx);
  return getBudget(tx, draft.teamId, id);
}

/** A pool of the team, or one of the whole installation. With `lock`, no other change until the transaction ends. */
export async function getBudget(
  db: Queryable,
  teamId: string,
  id: string,
  options: { lock?: boolean } = {},
): Promise<BudgetRow> {
  if (options.lock === true) await db.query('SELECT 1 FROM budgets WHERE id = $1 FOR UPDATE', [id]);
  const result = await db.query(`${SELECT} WHERE b.id = $1 AND (b.team_id = $2 OR b.scope_kind = 'org')`, [id, teamId]);
  return toCamel<BudgetRow>(requireRow(result.rows[0] as object | undefined, `budget ${id}`));
}

export async function listBudgets(
  db: Queryable,
  where: {
    teamId: string;
    scopeKind?: BudgetScope | undefined;
    scopeId?: string | undefined;
    includeArchived: boolean;
  },
  page: PageRequest,
): Promise<Page<BudgetRow>> {
  const filter = new Filter()
    .add(`(team_id = ? OR scope_kind = 'org')`, where.teamId)
    .add('scope_kind = ?', where.scopeKind)
    .add('scope_id = ?', where.scopeId);
  if (!where.includeArchived) filter.addFixed('archived_at IS NULL');
  return selectPage<BudgetRow>(db, SELECT, filter, page);
}

export async function updateBudget(tx: Queryable, before: BudgetRow, fields: BudgetFields): Promise<BudgetRow> {
  await tx.query(
    `UPDATE budgets SET (${FIELDS}) = ROW ($1, $2::bigint, $3::bigint, $4::jsonb, $5, $6::int), updated_at = now()
     WHERE id = $7`,
    [...values(fields), before.id],
  );
  await tellChange(tx);
  return getBudget(tx, before.teamId, before.id);
}

export async function archiveBudget(tx: Queryable, before: BudgetRow): Promise<BudgetRow> {
  await tx.query('UPDATE budgets SET archived_at = coalesce(archived_at, now()), updated_at = now() WHERE id = $1', [
    before.id,
  ]);
  await tellChange(tx);
  return getBudget(tx, before.teamId, before.id);
}

/**
 * Makes the pool of a session agree with its `budget` field. A session at the top pays for all that it starts; one
 * that was started by another has its own share within that.
 */
export async function putSessionBudget(
  tx: Queryable,
  session: { id: string; teamId: string; createdBy: string },
  budget: BudgetLimit | null,
): Promise<void> {
  const limitMicros = budget === null ? null : Number(budget.max_list_cost.amount) * MICROS_PER_CENT;
  await tx.query(
    `INSERT INTO budgets AS b (id, team_id, name, scope_kind, scope_id, period, hard_limit_micros, is_managed, created_by)
     SELECT $1, $2, 'Session ' || s.id, CASE WHEN s.root_session_id IS NULL THEN 'root_session' ELSE 'session' END, s.id,
       'total', $4::bigint, true, $5
     FROM sessions s WHERE s.id = $3 AND $4::bigint IS NOT NULL
     ON CONFLICT (scope_id) WHERE is_managed
       DO UPDATE SET hard_limit_micros = excluded.hard_limit_micros, updated_at = now(), archived_at = NULL`,
    [newId('budget'), session.teamId, session.id, limitMicros, session.createdBy],
  );
  if (limitMicros === null) {
    await tx.query(
      'UPDATE budgets SET archived_at = now(), updated_at = now() WHERE scope_id = $1 AND is_managed AND archived_at IS NULL',
      [session.id],
    );
  }
  await tellChange(tx);
}

/** Makes the pool of a key agree with its `budget` field; null: the key has no limit of its own any more. */
export async function putKeyBudget(
  tx: Queryable,
  key: { id: string; teamId: string; createdBy: string },
  limitMicros: number | null,
): Promise<void> {
  if (limitMicros === null) {
    await tx.query(
      `UPDATE budgets SET archived_at = now(), updated_at = now()
       WHERE scope_kind = 'key' AND scope_id = $1 AND is_managed AND archived_at IS NULL`,
      [key.id],
    );
  } else {
    await tx.query(
      `INSERT INTO budgets (id, team_id, name, scope_kind, scope_id, period, hard_limit_micros, is_managed, created_by)
       VALUES ($1, $2, $3, 'key', $4, 'total', $5, true, $6)
       ON CONFLICT (scope_id) WHERE is_managed
         DO UPDATE SET hard_limit_micros = excluded.hard_limit_micros, updated_at = now(), archived_at = NULL`,
      [newId('budget'), key.teamId, `Key ${key.id}`, key.id, limitMicros, key.createdBy],
    );
  }
  await tellChange(tx);
}

/** What the pool of a session's `budget` field has paid, sub-sessions included; undefined when it has none. */
export async function findSessionSpend(db: Queryable, sessionId: string): Promise<number | undefined> {
  const result = await db.query<{ spent_micros: number }>(
    `SELECT coalesce(w.spent_micros, 0)::bigint AS spent_micros FROM budgets b
     LEFT JOIN budget_windows w ON w.budget_id = b.id AND w.window_key = 'total'
     WHERE b.scope_id = $1 AND b.is_managed`,
    [sessionId],
  );
  return result.rows[0]?.spent_micros;
}

async function tellChange(tx: Queryable): Promise<void> {
  await tx.query('SELECT pg_notify($1, $2)', [BUDGETS_CHANNEL, 'changed']);
}

function values(fields: BudgetFields): unknown[] {
  return [
    fields.name,
    fields.hardLimitMicros,
    fields.softLimitMicros,
    JSON.stringify(fields.thresholds),
    fields.degradeTo,
    fields.degradeAtPercent,
  ];
}
