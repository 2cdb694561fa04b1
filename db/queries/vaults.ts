import { newId } from '../../contracts/ids.ts';
import type { Page, PageRequest } from '../paging.ts';
import { Filter, selectPage } from '../paging.ts';
import type { Queryable } from '../pool.ts';
import { requireRow } from '../pool.ts';
import { toCamel } from '../rows.ts';

export interface VaultRow extends VaultFields {
  id: string;
  teamId: string;
  createdBy: string;
  createdAt: Date;
  updatedAt: Date;
  archivedAt: Date | null;
}

export interface VaultFields {
  displayName: string;
  metadata: Record<string, string>;
}

const COLUMNS = 'id, team_id, display_name, metadata, created_by, created_at, updated_at, archived_at';

export async function insertVault(
  tx: Queryable,
  owner: { teamId: string; createdBy: string },
  fields: VaultFields,
): Promise<VaultRow> {
  const result = await tx.query(
    `INSERT INTO vaults (id, team_id, created_by, display_name, metadata) VALUES ($1, $2, $3, $4, $5)
     RETURNING ${COLUMNS}`,
    [newId('vault'), owner.teamId, owner.createdBy, fields.displayName, JSON.stringify(fields.metadata)],
  );
  return toCamel<VaultRow>(result.rows[0] as object);
}

/** With `lock`, no other change of the vault or of what it holds until the transaction ends. */
export async function getVault(
  db: Queryable,
  teamId: string,
  id: string,
  options: { lock?: boolean } = {},
): Promise<VaultRow> {
  const result = await db.query(
    `SELECT ${COLUMNS} FROM vaults WHERE id = $1 AND team_id = $2 AND deleted_at IS NULL
     ${options.lock === true ? 'FOR UPDATE' : ''}`,
    [id, teamId],
  );
  return toCamel<VaultRow>(requireRow(result.rows[0] as object | undefined, `vault ${id}`));
}

export async function updateVault(tx: Queryable, id: string, fields: VaultFields): Promise<VaultRow> {
  const result = await tx.query(
    `UPDATE vaults SET display_name = $2, metadata = $3, updated_at = now() WHERE id = $1 RETURNING ${COLUMNS}`,
    [id, fields.displayName, JSON.stringify(fields.metadata)],
  );
  return toCamel<VaultRow>(result.rows[0] as object);
}

/** Ends a vault for new and running sessions; a second call changes nothing. */
export async function archiveVault(tx: Queryable, id: string): Promise<VaultRow> {
  const result = await tx.query(
    `UPDATE vaults SET archived_at = coalesce(archived_at, now()),
       updated_at = CASE WHEN archived_at IS NULL THEN now() ELSE updated_at END
     WHERE id = $1 RETURNING ${COLUMNS}`,
    [id],
  );
  return toCamel<VaultRow>(result.rows[0] as object);
}

/** The vault is gone for everybody; only its row stays, without metadata. Its credentials are the caller's. */
export async function deleteVault(tx: Queryable, id: string): Promise<void> {
  await tx.query('DELETE FROM vault_bindings WHERE vault_id = $1', [id]);
  await tx.query(
    `UPDATE vaults SET deleted_at = now(), archived_at = coalesce(archived_at, now()), metadata = '{}' WHERE id = $1`,
    [id],
  );
}

export async function listVaults(
  db: Queryable,
  where: { teamId: string; includeArchived: boolean },
  page: PageRequest,
): Promise<Page<VaultRow>> {
  const filter = new Filter().add('team_id = ?', where.teamId);
  if (!where.includeArchived) filter.addFixed('archived_at IS NULL');
  return selectPage<VaultRow>(db, `SELECT ${COLUMNS} FROM vaults WHERE deleted_at IS NULL`, filter, page);
}

/** Which of `ids` are vaults of the team, and which of those are archived. */
export async function findVaults(
  db: Queryable,
  teamId: string,
  ids: readonly string[],
): Promise<Map<string, { isArchived: boolean }>> {
  if (ids.length === 0) return new Map();
  const result = await db.query<{ id: string; archived: boolean }>(
    `SELECT id, archived_at IS NOT NULL AS archived FROM vaults
     WHERE team_id = $1 AND id = ANY($2) AND deleted_at IS NULL`,
    [teamId, ids],
  );
  return new Map(result.rows.map((row) => [row.id, { isArchived: row.archived }]));
}
