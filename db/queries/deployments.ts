import type { BudgetLimit, EnvironmentConfig, SessionLimits } from '../../contracts/definitions.ts';
import { newId } from '../../contracts/ids.ts';
import { withRepositoryRules } from '../../contracts/repository-rules.ts';
import type { CreatedRange, Page, PageRequest } from '../paging.ts';
import { Filter, selectPage } from '../paging.ts';
import type { Queryable } from '../pool.ts';
import { requireRow } from '../pool.ts';
import { toCamel } from '../rows.ts';
import { getAgent } from './agents.ts';
import type { RunTrigger } from './deployment-runs.ts';
import { findRunByWorkflow, insertRun } from './deployment-runs.ts';
import { getEnvironment } from './environments.ts';
import type { InitialEventDraft } from './sessions.ts';
import { createSession } from './sessions.ts';
import { findVaults } from './vaults.ts';

export interface CronSchedule {
  type: 'cron';
  expression: string;
  timezone: string;
}

export interface DeploymentFields {
  name: string;
  description: string | null;
  agentId: string;
  agentVersion: number | null;
  environmentId: string;
  initialEvents: InitialEventDraft[];
  schedule: CronSchedule | null;
  budget: BudgetLimit | null;
  limits: SessionLimits;
  vaultIds: string[];
  labels: string[];
  repo: string | null;
  metadata: Record<string, string>;
}

export interface DeploymentRow extends DeploymentFields {
  id: string;
  teamId: string;
  status: 'active' | 'paused';
  pausedReason: { type: string; [key: string]: unknown } | null;
  resources: unknown[];
  createdBy: string;
  createdAt: Date;
  updatedAt: Date;
  archivedAt: Date | null;
  scheduleRevision: number;
  scheduleSyncedRevision: number;
  /** Newest version of its agent: what it runs when none is pinned. */
  latestVersion: number;
}

const COLUMNS = `id, team_id, name, description, agent_id, agent_version, environment_id, initial_events, schedule, status,
  paused_reason, budget, limits, resources, vault_ids, labels, repo, metadata, created_by, created_at, updated_at, archived_at,
  schedule_revision, schedule_synced_revision,
  (SELECT a.latest_version FROM agents a WHERE a.id = deployments.agent_id) AS latest_version`;

const FIELD_COLUMNS = `name, description, agent_id, agent_version, environment_id, initial_events, schedule, budget, limits,
  vault_ids, labels, repo, metadata`;

/** One without a schedule has none at Temporal either: nothing is to be told there, and nobody waits for it. */
const REVISE = 'schedule_revision = schedule_revision + CASE WHEN schedule IS NULL THEN 0 ELSE 1 END';

export async function insertDeployment(
  tx: Queryable,
  owner: { teamId: string; createdBy: string },
  fields: DeploymentFields,
): Promise<DeploymentRow> {
  const result = await tx.query(
    `INSERT INTO deployments (${FIELD_COLUMNS}, id, team_id, created_by, status, schedule_revision, schedule_synced_revision)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, 'active',
       1, CASE WHEN $7::jsonb IS NULL THEN 1 ELSE 0 END) RETURNING ${COLUMNS}`,
    [...values(fields), newId('deployment'), owner.teamId, owner.createdBy],
  );
  return toCamel<DeploymentRow>(result.rows[0] as object);
}

/** With `lock`, no other change until the transaction ends. */
export async function getDeployment(
  db: Queryable,
  teamId: string,
  id: string,
  options: { lock?: boolean } = {},
): Promise<DeploymentRow> {
  const result = await db.query(
    `SELECT ${COLUMNS} FROM deployments WHERE id = $1 AND team_id = $2 ${options.lock === true ? 'FOR UPDATE' : ''}`,
    [id, teamId],
  );
  return toCamel<DeploymentRow>(requireRow(result.rows[0] as object | undefined, `deployment ${id}`));
}

export async function updateDeployment(tx: Queryable, id: string, fields: DeploymentFields): Promise<DeploymentRow> {
  const result = await tx.query(
    `UPDATE deployments SET (${FIELD_COLUMNS}) = ROW ($1, $2, $3, $4, $5, $6::jsonb, $7::jsonb, $8::jsonb, $9::jsonb, $10::jsonb, $11::jsonb, $12, $13::jsonb),
       updated_at = now(), schedule_revision = schedule_revision + CASE WHEN $7::jsonb IS NULL AND schedule IS NULL THEN 0 ELSE 1 END
     WHERE id = $14 RETURNING ${COLUMNS}`,
    [...values(fields), id],
  );
  return toCamel<DeploymentRow>(result.rows[0] as object);
}

/** Pause (with a reason) or resume. */
export async function setDeploymentStatus(
  tx: Queryable,
  id: string,
  status: 'active' | 'paused',
  reason: { type: string; [key: string]: unknown } | null,
): Promise<DeploymentRow> {
  const result = await tx.query(
    `UPDATE deployments SET status = $2, paused_reason = $3, updated_at = now(), ${REVISE}
     WHERE id = $1 RETURNING ${COLUMNS}`,
    [id, status, reason === null ? null : JSON.stringify(reason)],
  );
  return toCamel<DeploymentRow>(result.rows[0] as object);
}

export async function archiveDeployment(tx: Queryable, id: string): Promise<DeploymentRow> {
  const result = await tx.query(
    `UPDATE deployments SET archived_at = coalesce(archived_at, now()), updated_at = now(), ${REVISE} WHERE id = $1 RETURNING ${COLUMNS}`,
    [id],
  );
  return toCamel<DeploymentRow>(result.rows[0] as object);
}

export async function listDeployments(
  db: Queryable,
  where: {
    teamId: string;
    agentId?: string | undefined;
    status?: string | undefined;
    includeArchived: boolean;
  } & CreatedRange,
  page: PageRequest,
): Promise<Page<DeploymentRow>> {
  const filter = new Filter()
    .add('team_id = ?', where.teamId)
    .add('agent_id = ?', where.agentId)
    .add('status = ?', where.status)
    .addCreated(where);
  if (!where.includeArchived) filter.addFixed('archived_at IS NULL');
  return selectPage<DeploymentRow>(db, `SELECT ${COLUMNS} FROM deployments`, filter, page);
}

/** Deployments whose Temporal schedule does not show what their row says. */
export async function listUnsynced(db: Queryable, olderThanMs: number, limit: number): Promise<string[]> {
  const result = await db.query<{ id: string }>(
    `SELECT id FROM deployments
     WHERE schedule_revision <> schedule_synced_revision AND updated_at < now() - make_interval(secs => $1 / 1000.0)
     ORDER BY updated_at LIMIT $2`,
    [olderThanMs, limit],
  );
  return result.rows.map((row) => row.id);
}

/** The row, locked, for the one process that brings its schedule up to date; undefined when another is at it. */
export async function lockForSync(tx: Queryable, id: string): Promise<DeploymentRow | undefined> {
  const result = await tx.query(`SELECT ${COLUMNS} FROM deployments WHERE id = $1 FOR UPDATE SKIP LOCKED`, [id]);
  return result.rows[0] === undefined ? undefined : toCamel<DeploymentRow>(result.rows[0] as object);
}

export async function markSynced(tx: Queryable, id: string, revision: number): Promise<void> {
  await tx.query('UPDATE deployments SET schedule_synced_revision = $2 WHERE id = $1', [id, revision]);
}

export interface DeploymentSession {
  runId: string;
  /** Null: the run failed before it had a session; its row says why. */
  sessionId: string | null;
  created: boolean;
}

/**
 * Run row, session row and first inputs of one firing, idempotent on `workflowId`. Null: there is nothing to run (the
 * deployment is archived, or paused and fired by its schedule).
 */
export async function createDeploymentSession(
  tx: Queryable,
  firing: { deploymentId: string; runId?: string | undefined; workflowId: string; trigger: RunTrigger },
): Promise<DeploymentSession | null> {
  const locked = await tx.query(`SELECT ${COLUMNS} FROM deployments WHERE id = $1 FOR UPDATE`, [firing.deploymentId]);
  const row = toCamel<DeploymentRow>(
    requireRow(locked.rows[0] as object | undefined, `deployment ${firing.deploymentId}`),
  );
  const known = await findRunByWorkflow(tx, firing.workflowId);
  if (known !== undefined) return { runId: known.id, sessionId: known.sessionId, created: false };
  if (row.archivedAt !== null || (row.status === 'paused' && firing.trigger.type === 'schedule')) return null;

  const agent = await getAgent(tx, row.teamId, row.agentId, row.agentVersion ?? undefined);
  const environment = await getEnvironment(tx, row.teamId, row.environmentId);
  const run = {
    id: firing.runId ?? newId('deploymentRun'),
    teamId: row.teamId,
    deploymentId: row.id,
    agentId: agent.id,
    agentVersion: agent.version,
    trigger: firing.trigger,
    workflowId: firing.workflowId,
  };
  const error =
    refusalOf(agent.archivedAt, environment.archivedAt) ??
    refusalOfVaults(row.vaultIds, await findVaults(tx, row.teamId, row.vaultIds));
  if (error !== undefined) {
    await insertRun(tx, { ...run, sessionId: null, error });
    await setDeploymentStatus(tx, row.id, 'paused', { type: 'error', error: { type: error.type } });
    return { runId: run.id, sessionId: null, created: true };
  }
  const session = await createSession(tx, {
    teamId: row.teamId,
    createdBy: row.createdBy,
    agent: { id: agent.id, version: agent.version, definition: agent.definition },
    environment: { id: environment.id, config: sessionConfig(environment.config) },
    title: row.name,
    metadata: row.metadata,
    budget: row.budget,
    limits: row.limits,
    vaultIds: row.vaultIds,
    deploymentId: row.id,
    labels: row.labels,
    repo: row.repo,
    trigger: firing.trigger.type,
    initialEvents: row.initialEvents,
  });
  await insertRun(tx, { ...run, sessionId: session.id, error: null });
  return { runId: run.id, sessionId: session.id, created: true };
}

/** Its repositories are open to it, as to a session that somebody opens by hand. */
function sessionConfig(config: EnvironmentConfig): EnvironmentConfig {
  return config.type === 'cloud' ? withRepositoryRules(config) : config;
}

function refusalOf(agentArchivedAt: Date | null, environmentArchivedAt: Date | null) {
  if (agentArchivedAt !== null) return { type: 'agent_archived_error', message: 'the agent is archived' };
  if (environmentArchivedAt !== null) {
    return { type: 'environment_archived_error', message: 'the environment is archived' };
  }
  return undefined;
}

function refusalOfVaults(ids: readonly string[], found: ReadonlyMap<string, { isArchived: boolean }>) {
  if (ids.some((id) => !found.has(id))) {
    return { type: 'vault_not_found_error', message: 'a vault of the deployment is gone' };
  }
  if (ids.some((id) => found.get(id)?.isArchived === true)) {
    return { type: 'vault_archived_error', message: 'a vault of the deployment is archived' };
  }
  return undefined;
}

function values(fields: DeploymentFields): unknown[] {
  return [
    fields.name,
    fields.description,
    fields.agentId,
    fields.agentVersion,
    fields.environmentId,
    JSON.stringify(fields.initialEvents),
    fields.schedule === null ? null : JSON.stringify(fields.schedule),
    fields.budget === null ? null : JSON.stringify(fields.budget),
    JSON.stringify(fields.limits),
    JSON.stringify(fields.vaultIds),
    JSON.stringify(fields.labels),
    fields.repo,
    JSON.stringify(fields.metadata),
  ];
}
