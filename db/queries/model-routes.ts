import type { ModelRouteSpec } from '../../contracts/model-routes.ts';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { newId } from '../../contracts/ids.ts';
import type { Page, PageRequest } from '../paging.ts';
import { Filter, selectPage } from '../paging.ts';
import { requireRow, type Queryable } from '../pool.ts';
import { toCamel } from '../rows.ts';

/** Told after every change, so that gateways read anew. */
export const MODEL_ROUTES_CHANNEL = 'longhaul_model_routes';
const ROUTES_PER_TEAM = 1_000;
/** More rows than this are not read; far above what teams can have in practice. */
const ROUTES_READ = 50_000;

/** Everything of a route but its name. */
export type RouteBody = Omit<ModelRouteSpec, 'name'>;

export interface ModelRouteRow {
  id: string;
  teamId: string;
  name: string;
  spec: RouteBody;
  createdBy: string;
  createdAt: Date;
  updatedAt: Date;
}

const COLUMNS = 'id, team_id, name, spec, created_by, created_at, updated_at';

/** Writes a new route; a team has each name once. */
export async function insertModelRoute(
  tx: Queryable,
  route: { teamId: string; userId: string; name: string; spec: RouteBody },
): Promise<ModelRouteRow> {
  const { teamId, userId, name, spec } = route;
  const count = await tx.query<{ n: number }>('SELECT count(*)::int AS n FROM model_routes WHERE team_id = $1', [
    teamId,
  ]);
  if ((count.rows[0]?.n ?? 0) >= ROUTES_PER_TEAM) {
    throw new LonghaulError('invalid_request', `a team may have at most ${ROUTES_PER_TEAM} routes`, { field: 'name' });
  }
  const result = await tx.query(
    `INSERT INTO model_routes (id, team_id, name, spec, created_by) VALUES ($1, $2, $3, $4, $5)
     ON CONFLICT (team_id, name) DO NOTHING RETURNING ${COLUMNS}`,
    [newId('modelRoute'), teamId, name, JSON.stringify(spec), userId],
  );
  if (result.rows[0] === undefined) {
    throw new LonghaulError('version_conflict', `the route "${name}" exists already`, { field: 'name' });
  }
  await notify(tx);
  return toCamel<ModelRouteRow>(result.rows[0] as object);
}

/** With `lock`, no other edit until the transaction ends. */
export async function getModelRoute(
  db: Queryable,
  teamId: string,
  id: string,
  options: { lock?: boolean } = {},
): Promise<ModelRouteRow> {
  const result = await db.query(
    `SELECT ${COLUMNS} FROM model_routes WHERE id = $1 AND team_id = $2 ${options.lock === true ? 'FOR UPDATE' : ''}`,
    [id, teamId],
  );
  return toCamel<ModelRouteRow>(requireRow(result.rows[0] as object | undefined, `model route ${id}`));
}

/** The team's route of this very name. */
export async function findModelRoute(db: Queryable, teamId: string, name: string): Promise<ModelRouteRow | undefined> {
  const result = await db.query(`SELECT ${COLUMNS} FROM model_routes WHERE team_id = $1 AND name = $2`, [teamId, name]);
  return result.rows[0] === undefined ? undefined : toCamel<ModelRouteRow>(result.rows[0] as object);
}

export async function updateModelRoute(tx: Queryable, id: string, spec: RouteBody): Promise<ModelRouteRow> {
  const result = await tx.query(
    `UPDATE model_routes SET spec = $2, updated_at = clock_timestamp() WHERE id = $1 RETURNING ${COLUMNS}`,
    [id, JSON.stringify(spec)],
  );
  await notify(tx);
  return toCamel<ModelRouteRow>(result.rows[0] as object);
}

export async function deleteModelRoute(tx: Queryable, id: string): Promise<void> {
  await tx.query('DELETE FROM model_routes WHERE id = $1', [id]);
  await notify(tx);
}

export async function listModelRoutes(db: Queryable, teamId: string, page: PageRequest): Promise<Page<ModelRouteRow>> {
  const filter = new Filter().add('team_id = ?', teamId);
  return selectPage<ModelRouteRow>(db, `SELECT ${COLUMNS} FROM model_routes`, filter, page);
}

export interface ModelPolicyRow {
  teamId: string;
  allowedModels: string[] | null;
  updatedAt: Date;
}

export async function getModelPolicy(db: Queryable, teamId: string): Promise<ModelPolicyRow | undefined> {
  const result = await db.query('SELECT team_id, allowed_models, updated_at FROM model_policies WHERE team_id = $1', [
    teamId,
  ]);
  return result.rows[0] === undefined ? undefined : toCamel<ModelPolicyRow>(result.rows[0] as object);
}

export async function setModelPolicy(
  tx: Queryable,
  policy: { teamId: string; userId: string; allowedModels: string[] | null },
): Promise<ModelPolicyRow> {
  const { teamId, userId, allowedModels } = policy;
  const result = await tx.query(
    `INSERT INTO model_policies (team_id, allowed_models, updated_by) VALUES ($1, $2, $3)
     ON CONFLICT (team_id) DO UPDATE SET allowed_models = excluded.allowed_models, updated_by = excluded.updated_by,
       updated_at = clock_timestamp() RETURNING team_id, allowed_models, updated_at`,
    [teamId, allowedModels === null ? null : JSON.stringify(allowedModels), userId],
  );
  await notify(tx);
  return toCamel<ModelPolicyRow>(result.rows[0] as object);
}

/** All routes and policies, for a gateway. */
export async function readModelRoutes(db: Queryable): Promise<{ routes: ModelRouteRow[]; policies: ModelPolicyRow[] }> {
  const routes = await db.query(`SELECT ${COLUMNS} FROM model_routes ORDER BY id LIMIT ${ROUTES_READ}`);
  const policies = await db.query('SELECT team_id, allowed_models, updated_at FROM model_policies');
  return {
    routes: routes.rows.map((row) => toCamel<ModelRouteRow>(row as object)),
    policies: policies.rows.map((row) => toCamel<ModelPolicyRow>(row as object)),
  };
}

/** Changes when anything of the above does. */
export async function modelRoutesMark(db: Queryable): Promise<string> {
  const result = await db.query<{ mark: string }>(
    `SELECT concat_ws('/', (SELECT concat(count(*), ' ', max(updated_at)) FROM model_routes),
       (SELECT concat(count(*), ' ', max(updated_at)) FROM model_policies)) AS mark`,
  );
  return result.rows[0]?.mark ?? '';
}

async function notify(tx: Queryable): Promise<void> {
  await tx.query('SELECT pg_notify($1, $2)', [MODEL_ROUTES_CHANNEL, '']);
}
