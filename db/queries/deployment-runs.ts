import type { CreatedRange, Page, PageRequest } from '../paging.ts';
import { Filter, selectPage } from '../paging.ts';
import type { Queryable } from '../pool.ts';
import { requireRow } from '../pool.ts';
import { toCamel } from '../rows.ts';

/** Why a deployment ran. */
export type RunTrigger = { type: 'manual' } | { type: 'schedule'; scheduled_at: string };

export interface DeploymentRunRow {
  id: string;
  teamId: string;
  deploymentId: string;
  agentId: string;
  agentVersion: number;
  sessionId: string | null;
  triggerContext: RunTrigger;
  workflowId: string;
  status: 'running' | 'succeeded' | 'failed';
  error: { type: string; message: string } | null;
  createdAt: Date;
  endedAt: Date | null;
}

const COLUMNS = `id, team_id, deployment_id, agent_id, agent_version, session_id, trigger_context, workflow_id, status,
  error, created_at, ended_at`;

/** Records one firing; with an error it has failed already. */
export async function insertRun(
  tx: Queryable,
  run: {
    id: string;
    teamId: string;
    deploymentId: string;
    agentId: string;
    agentVersion: number;
    sessionId: string | null;
    trigger: RunTrigger;
    workflowId: string;
    error: { type: string; message: string } | null;
  },
): Promise<void> {
  await tx.query(
    `INSERT INTO deployment_runs (id, team_id, deployment_id, agent_id, agent_version, session_id, trigger_context,
       workflow_id, status, error, ended_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, CASE WHEN $9 = 'failed' THEN now() END)`,
    [
      run.id,
      run.teamId,
      run.deploymentId,
      run.agentId,
      run.agentVersion,
      run.sessionId,
      JSON.stringify(run.trigger),
      run.workflowId,
      run.error === null ? 'running' : 'failed',
      run.error === null ? null : JSON.stringify(run.error),
    ],
  );
}

export async function findRunByWorkflow(db: Queryable, workflowId: string): Promise<DeploymentRunRow | undefined> {
  return first(await db.query(`SELECT ${COLUMNS} FROM deployment_runs WHERE workflow_id = $1`, [workflowId]));
}

/** The run that made a session, if one did. */
export async function findRunOfSession(db: Queryable, sessionId: string): Promise<DeploymentRunRow | undefined> {
  return first(await db.query(`SELECT ${COLUMNS} FROM deployment_runs WHERE session_id = $1`, [sessionId]));
}

export async function getRun(db: Queryable, teamId: string, id: string): Promise<DeploymentRunRow> {
  const found = first(
    await db.query(`SELECT ${COLUMNS} FROM deployment_runs WHERE id = $1 AND team_id = $2`, [id, teamId]),
  );
  return requireRow(found, `deployment run ${id}`);
}

/** Its one end; false when it had ended already. */
export async function endRun(
  tx: Queryable,
  id: string,
  end: { status: 'succeeded' } | { status: 'failed'; error: { type: string; message: string } },
): Promise<boolean> {
  const result = await tx.query(
    `UPDATE deployment_runs SET status = $2, error = $3, ended_at = now() WHERE id = $1 AND status = 'running'`,
    [id, end.status, end.status === 'failed' ? JSON.stringify(end.error) : null],
  );
  return result.rowCount === 1;
}

/** A run that waits for the first turn of its session. */
export interface OpenRun {
  id: string;
  workflowId: string;
  /** False: delivery has yet to see to it that its session begins. */
  sessionStarted: boolean;
}

/** Runs without an end that are older than `olderThanMs`, a page in order of id. */
export async function listOpenRuns(
  db: Queryable,
  page: { after: string; olderThanMs: number; limit: number },
): Promise<OpenRun[]> {
  const result = await db.query(
    `SELECT r.id, r.workflow_id, s.workflow_started_at IS NOT NULL AS session_started
     FROM deployment_runs r LEFT JOIN sessions s ON s.id = r.session_id
     WHERE r.status = 'running' AND r.id > $1 AND r.created_at < now() - make_interval(secs => $2 / 1000.0)
     ORDER BY r.id LIMIT $3`,
    [page.after, page.olderThanMs, page.limit],
  );
  return result.rows.map((row) => toCamel<OpenRun>(row as object));
}

/** Newest scheduled firing of each deployment. */
export async function lastScheduledRuns(db: Queryable, deploymentIds: string[]): Promise<Map<string, string>> {
  const result = await db.query<{ deployment_id: string; scheduled_at: string }>(
    `SELECT deployment_id, max(trigger_context ->> 'scheduled_at') AS scheduled_at FROM deployment_runs
     WHERE deployment_id = ANY($1) AND trigger_context ->> 'type' = 'schedule' GROUP BY deployment_id`,
    [deploymentIds],
  );
  return new Map(result.rows.map((row) => [row.deployment_id, row.scheduled_at]));
}

export async function listRuns(
  db: Queryable,
  where: {
    teamId: string;
    deploymentId?: string | undefined;
    hasError?: boolean | undefined;
    triggerType?: string | undefined;
  } & CreatedRange,
  page: PageRequest,
): Promise<Page<DeploymentRunRow>> {
  const filter = new Filter()
    .add('team_id = ?', where.teamId)
    .add('deployment_id = ?', where.deploymentId)
    .add('(error IS NOT NULL) = ?', where.hasError)
    .add(`trigger_context ->> 'type' = ?`, where.triggerType)
    .addCreated(where);
  return selectPage<DeploymentRunRow>(db, `SELECT ${COLUMNS} FROM deployment_runs`, filter, page);
}

function first(result: { rows: unknown[] }): DeploymentRunRow | undefined {
  return result.rows[0] === undefined ? undefined : toCamel<DeploymentRunRow>(result.rows[0] as object);
}
