import type { AgentDefinition } from '../../contracts/definitions.ts';
import { newId } from '../../contracts/ids.ts';
import type { CreatedRange, Page, PageRequest } from '../paging.ts';
import { Filter, selectPage } from '../paging.ts';
import type { Queryable } from '../pool.ts';
import { requireRow } from '../pool.ts';
import { toCamel } from '../rows.ts';

/** One version of an agent; `updatedAt` is the version's own time. */
export interface AgentRow {
  id: string;
  teamId: string;
  version: number;
  latestVersion: number;
  definition: AgentDefinition;
  createdBy: string;
  createdAt: Date;
  updatedAt: Date;
  archivedAt: Date | null;
}

const SELECT_VERSION = `
  SELECT a.id, a.team_id, v.version, a.latest_version, v.definition, a.created_by, a.created_at,
         CASE WHEN v.version = a.latest_version THEN a.updated_at ELSE v.created_at END AS updated_at, a.archived_at
  FROM agents a JOIN agent_versions v ON v.agent_id = a.id`;

export async function insertAgent(
  tx: Queryable,
  owner: { teamId: string; createdBy: string },
  definition: AgentDefinition,
): Promise<AgentRow> {
  const id = newId('agent');
  await tx.query('INSERT INTO agents (id, team_id, latest_version, created_by) VALUES ($1, $2, 1, $3)', [
    id,
    owner.teamId,
    owner.createdBy,
  ]);
  await insertVersion(tx, id, 1, definition);
  return getAgent(tx, owner.teamId, id);
}

/** The newest version, or the given one. */
export async function getAgent(db: Queryable, teamId: string, id: string, version?: number): Promise<AgentRow> {
  const result = await db.query(
    `${SELECT_VERSION} WHERE a.id = $1 AND a.team_id = $2 AND v.version = coalesce($3, a.latest_version)`,
    [id, teamId, version ?? null],
  );
  return toCamel<AgentRow>(
    requireRow(
      result.rows[0] as object | undefined,
      version === undefined ? `agent ${id}` : `agent ${id} version ${version}`,
    ),
  );
}

/** Same, and no other edit until the transaction ends. */
export async function lockAgent(tx: Queryable, teamId: string, id: string): Promise<AgentRow> {
  const found = await tx.query('SELECT id FROM agents WHERE id = $1 AND team_id = $2 FOR UPDATE', [id, teamId]);
  requireRow(found.rows[0] as object | undefined, `agent ${id}`);
  return getAgent(tx, teamId, id);
}

/** Adds the next version; the caller holds the lock. */
export async function insertAgentVersion(
  tx: Queryable,
  agent: AgentRow,
  definition: AgentDefinition,
): Promise<AgentRow> {
  const version = agent.latestVersion + 1;
  await insertVersion(tx, agent.id, version, definition);
  await tx.query('UPDATE agents SET latest_version = $2, updated_at = now() WHERE id = $1', [agent.id, version]);
  return getAgent(tx, agent.teamId, agent.id);
}

async function insertVersion(tx: Queryable, id: string, version: number, definition: AgentDefinition): Promise<void> {
  await tx.query('INSERT INTO agent_versions (agent_id, version, definition) VALUES ($1, $2, $3)', [
    id,
    version,
    JSON.stringify(definition),
  ]);
}

export async function archiveAgent(tx: Queryable, teamId: string, id: string): Promise<AgentRow> {
  await tx.query(
    'UPDATE agents SET archived_at = now(), updated_at = now() WHERE id = $1 AND team_id = $2 AND archived_at IS NULL',
    [id, teamId],
  );
  return getAgent(tx, teamId, id);
}

/** Newest version of each agent. */
export async function listAgents(
  db: Queryable,
  where: { teamId: string; includeArchived: boolean } & CreatedRange,
  page: PageRequest,
): Promise<Page<AgentRow>> {
  const filter = new Filter().add('team_id = ?', where.teamId).addCreated(where);
  if (!where.includeArchived) filter.addFixed('archived_at IS NULL');
  return selectPage<AgentRow>(db, `${SELECT_VERSION} WHERE v.version = a.latest_version`, filter, page);
}

/** All versions of one agent, newest first. */
export async function listAgentVersions(
  db: Queryable,
  where: { teamId: string; id: string },
  page: PageRequest,
): Promise<Page<AgentRow>> {
  const agent = await getAgent(db, where.teamId, where.id);
  // The page cursor is (time, id) of the item; here the item is a version.
  const versions = await selectPage<{ id: string; version: number; definition: AgentDefinition; createdAt: Date }>(
    db,
    `SELECT agent_id, lpad(version::text, 10, '0') AS id, version, definition, created_at FROM agent_versions`,
    new Filter().add('agent_id = ?', where.id),
    page,
  );
  return {
    ...versions,
    data: versions.data.map((row) => ({
      ...agent,
      version: row.version,
      definition: row.definition,
      updatedAt: row.version === agent.latestVersion ? agent.updatedAt : row.createdAt,
    })),
  };
}
