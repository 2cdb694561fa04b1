import { newId } from '../../contracts/ids.ts';
import type { Queryable } from '../pool.ts';
import { requireRow } from '../pool.ts';
import { toCamel } from '../rows.ts';

export type BindingTarget = 'agent' | 'deployment' | 'team' | 'user';

export interface VaultBindingRow {
  id: string;
  vaultId: string;
  targetType: BindingTarget;
  targetId: string;
  createdBy: string;
  createdAt: Date;
}

const COLUMNS = 'id, vault_id, target_type, target_id, created_by, created_at';

/** Gives a vault to every session of the target that starts from now on; the same binding again is a no-op. */
export async function putBinding(
  tx: Queryable,
  binding: { teamId: string; vaultId: string; targetType: BindingTarget; targetId: string; createdBy: string },
): Promise<VaultBindingRow> {
  const result = await tx.query(
    `INSERT INTO vault_bindings (id, team_id, vault_id, target_type, target_id, created_by)
     VALUES ($1, $2, $3, $4, $5, $6)
     ON CONFLICT (vault_id, target_type, target_id) DO UPDATE SET vault_id = excluded.vault_id RETURNING ${COLUMNS}`,
    [newId('vaultBinding'), binding.teamId, binding.vaultId, binding.targetType, binding.targetId, binding.createdBy],
  );
  return toCamel<VaultBindingRow>(result.rows[0] as object);
}

/** How many vaults a target has, and how many targets a vault. */
export async function countBindings(
  db: Queryable,
  where: { teamId: string; vaultId: string; targetType: BindingTarget; targetId: string },
): Promise<{ ofTarget: number; ofVault: number }> {
  const result = await db.query<{ of_target: number; of_vault: number }>(
    `SELECT count(*) FILTER (WHERE target_type = $3 AND target_id = $4) AS of_target,
       count(*) FILTER (WHERE vault_id = $2) AS of_vault
     FROM vault_bindings WHERE team_id = $1 AND (vault_id = $2 OR (target_type = $3 AND target_id = $4))`,
    [where.teamId, where.vaultId, where.targetType, where.targetId],
  );
  const row = requireRow(result.rows[0], 'count');
  return { ofTarget: row.of_target, ofVault: row.of_vault };
}

export async function listBindings(db: Queryable, vaultId: string, limit: number): Promise<VaultBindingRow[]> {
  const result = await db.query(
    `SELECT ${COLUMNS} FROM vault_bindings WHERE vault_id = $1 ORDER BY created_at, id LIMIT $2`,
    [vaultId, limit],
  );
  return result.rows.map((row: object) => toCamel<VaultBindingRow>(row));
}

export async function deleteBinding(tx: Queryable, vaultId: string, id: string): Promise<VaultBindingRow> {
  const result = await tx.query(`DELETE FROM vault_bindings WHERE vault_id = $1 AND id = $2 RETURNING ${COLUMNS}`, [
    vaultId,
    id,
  ]);
  return toCamel<VaultBindingRow>(requireRow(result.rows[0] as object | undefined, `binding ${id}`));
}
