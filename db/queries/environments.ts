import type { EnvironmentConfig } from '../../contracts/definitions.ts';
import { completeEnvironment } from '../../contracts/environment-defaults.ts';
import { newId } from '../../contracts/ids.ts';
import type { Page, PageRequest } from '../paging.ts';
import { Filter, selectPage } from '../paging.ts';
import type { Queryable } from '../pool.ts';
import { requireRow } from '../pool.ts';
import { toCamel } from '../rows.ts';

export interface EnvironmentRow {
  id: string;
  teamId: string;
  name: string;
  description: string | null;
  config: EnvironmentConfig;
  metadata: Record<string, string>;
  createdAt: Date;
  updatedAt: Date;
  archivedAt: Date | null;
}

export interface EnvironmentFields {
  name: string;
  description: string | null;
  config: EnvironmentConfig;
  metadata: Record<string, string>;
}

const COLUMNS = 'id, team_id, name, description, config, metadata, created_at, updated_at, archived_at';

export async function insertEnvironment(
  tx: Queryable,
  teamId: string,
  fields: EnvironmentFields,
): Promise<EnvironmentRow> {
  const result = await tx.query(
    `INSERT INTO environments (id, team_id, name, description, config, metadata) VALUES ($1, $2, $3, $4, $5, $6)
     RETURNING ${COLUMNS}`,
    [newId('environment'), teamId, ...values(fields)],
  );
  return rowOf(result.rows[0]);
}

/** With `lock`, no other edit until the transaction ends. */
export async function getEnvironment(
  db: Queryable,
  teamId: string,
  id: string,
  options: { lock?: boolean } = {},
): Promise<EnvironmentRow> {
  const result = await db.query(
    `SELECT ${COLUMNS} FROM environments WHERE id = $1 AND team_id = $2 ${options.lock === true ? 'FOR UPDATE' : ''}`,
    [id, teamId],
  );
  return rowOf(requireRow(result.rows[0] as object | undefined, `environment ${id}`));
}

export async function updateEnvironment(tx: Queryable, id: string, fields: EnvironmentFields): Promise<EnvironmentRow> {
  const result = await tx.query(
    `UPDATE environments SET name = $2, description = $3, config = $4, metadata = $5, updated_at = now()
     WHERE id = $1 RETURNING ${COLUMNS}`,
    [id, ...values(fields)],
  );
  return rowOf(result.rows[0]);
}

export async function archiveEnvironment(tx: Queryable, teamId: string, id: string): Promise<EnvironmentRow> {
  await tx.query(
    'UPDATE environments SET archived_at = now(), updated_at = now() WHERE id = $1 AND team_id = $2 AND archived_at IS NULL',
    [id, teamId],
  );
  return getEnvironment(tx, teamId, id);
}

/** True when a session or deployment, whatever its state, refers to it: such a row is never deleted. */
export async function isEnvironmentUsed(tx: Queryable, id: string): Promise<boolean> {
  const result = await tx.query<{ used: boolean }>(
    `SELECT EXISTS (SELECT 1 FROM sessions WHERE environment_id = $1)
         OR EXISTS (SELECT 1 FROM deployments WHERE environment_id = $1) AS used`,
    [id],
  );
  return result.rows[0]?.used === true;
}

export async function deleteEnvironment(tx: Queryable, id: string): Promise<void> {
  await tx.query('DELETE FROM environments WHERE id = $1', [id]);
}

export async function listEnvironments(
  db: Queryable,
  where: { teamId: string; includeArchived: boolean },
  page: PageRequest,
): Promise<Page<EnvironmentRow>> {
  const filter = new Filter().add('team_id = ?', where.teamId);
  if (!where.includeArchived) filter.addFixed('archived_at IS NULL');
  const found = await selectPage<EnvironmentRow>(db, `SELECT ${COLUMNS} FROM environments`, filter, page);
  return { ...found, data: found.data.map(complete) };
}

function rowOf(row: unknown): EnvironmentRow {
  return complete(toCamel<EnvironmentRow>(row as object));
}

function complete(row: EnvironmentRow): EnvironmentRow {
  return { ...row, config: completeEnvironment(row.config) };
}

function values(fields: EnvironmentFields): unknown[] {
  return [fields.name, fields.description, JSON.stringify(fields.config), JSON.stringify(fields.metadata)];
}
