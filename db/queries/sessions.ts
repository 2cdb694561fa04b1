import type {
  AgentDefinition,
  BudgetLimit,
  ContentBlock,
  EnvironmentConfig,
  SessionLimits,
} from '../../contracts/definitions.ts';
import type { StoredSessionResource } from '../../contracts/session-resources.ts';
import { newId } from '../../contracts/ids.ts';
import { LIMITS } from '../../contracts/limits.ts';
import type { SessionStatus } from '../../contracts/states.ts';
import type { CreatedRange, Page, PageRequest } from '../paging.ts';
import { Filter, selectPage } from '../paging.ts';
import type { Queryable } from '../pool.ts';
import { requireRow } from '../pool.ts';
import { toCamel } from '../rows.ts';
import { putSessionBudget } from './budgets.ts';
import type { EventRow } from './events.ts';
import { appendEvents } from './events.ts';
import type { InputRow } from './inputs.ts';
import { insertInputs } from './inputs.ts';

export interface SessionRow {
  id: string;
  teamId: string;
  createdBy: string;
  agentId: string;
  agentVersion: number;
  agent: AgentDefinition;
  environmentId: string;
  title: string | null;
  metadata: Record<string, string>;
  budget: BudgetLimit | null;
  limits: SessionLimits;
  resources: StoredSessionResource[];
  vaultIds: string[];
  deploymentId: string | null;
  labels: string[];
  repo: string | null;
  trigger: string;
  status: SessionStatus;
  currentTurn: number;
  stopReason: { type: string; [key: string]: unknown } | null;
  lastSeq: number;
  closingAt: Date | null;
  workflowStartedAt: Date | null;
  activeMs: number;
  runningSince: Date | null;
  createdAt: Date;
  updatedAt: Date;
  archivedAt: Date | null;
  deletedAt: Date | null;
  terminatedAt: Date | null;
}

const COLUMNS = `id, team_id, created_by, agent_id, agent_version, agent, environment_id, title, metadata, budget, limits,
  resources, vault_ids, deployment_id, labels, repo, trigger, status, current_turn, stop_reason, last_seq, closing_at, workflow_started_at, active_ms,
  running_since, created_at, updated_at, archived_at, deleted_at, terminated_at`;

export interface SessionDraft {
  teamId: string;
  createdBy: string;
  agent: { id: string; version: number; definition: AgentDefinition };
  environment: { id: string; config: EnvironmentConfig };
  title: string | null;
  metadata: Record<string, string>;
  budget: BudgetLimit | null;
  limits: SessionLimits;
  vaultIds: string[];
  resources?: StoredSessionResource[];
  deploymentId: string | null;
  labels: string[];
  repo: string | null;
  /** What started it. */
  trigger: 'api' | 'schedule' | 'manual';
  initialEvents: InitialEventDraft[];
}

/** A user message the session starts with. */
export interface InitialEventDraft {
  type: 'user.message';
  content: ContentBlock[];
  model?: string | undefined;
}

/** Inserts a session with its first events and inputs; its workflow is started after the commit. */
export async function createSession(tx: Queryable, draft: SessionDraft): Promise<SessionRow> {
  const id = newId('session');
  await tx.query(
    `INSERT INTO sessions (id, team_id, created_by, agent_id, agent_version, agent, environment_id, environment, title,
       metadata, budget, limits, vault_ids, deployment_id, labels, repo, trigger, resources)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)`,
    [
      id,
      draft.teamId,
      draft.createdBy,
      draft.agent.id,
      draft.agent.version,
      JSON.stringify(draft.agent.definition),
      draft.environment.id,
      JSON.stringify(draft.environment.config),
      draft.title,
      JSON.stringify(draft.metadata),
      draft.budget === null ? null : JSON.stringify(draft.budget),
      JSON.stringify(draft.limits),
      JSON.stringify(draft.vaultIds),
      draft.deploymentId,
      JSON.stringify(draft.labels),
      draft.repo,
      draft.trigger,
      JSON.stringify(draft.resources ?? []),
    ],
  );
  if (draft.budget !== null) await putSessionBudget(tx, { ...draft, id }, draft.budget);
  await acceptMessages(tx, id, draft.initialEvents);
  return getSession(tx, draft.teamId, id);
}

/** Event rows and input rows of user messages, in order. */
export async function acceptMessages(
  tx: Queryable,
  sessionId: string,
  messages: InitialEventDraft[],
): Promise<EventRow[]> {
  if (messages.length === 0) return [];
  const events = await appendEvents(
    tx,
    sessionId,
    messages.map(({ type, content, model }) => ({
      type,
      payload: { content, ...(model === undefined ? {} : { model }) },
      processed: false,
    })),
  );
  const inputs = events.map((event, index) => {
    const model = messages[index]?.model;
    const message = { eventId: event.id, kind: 'message', ...(model === undefined ? {} : { model }) };
    return { eventId: event.id, kind: 'message' as const, message };
  });
  await insertInputs(tx, sessionId, inputs);
  return events;
}

/** With `lock`, no event and no state change of the session until the transaction ends. */
export async function getSession(
  db: Queryable,
  teamId: string,
  id: string,
  options: { lock?: boolean } = {},
): Promise<SessionRow> {
  const result = await db.query(
    `SELECT ${COLUMNS} FROM sessions WHERE id = $1 AND team_id = $2 AND deleted_at IS NULL
     ${options.lock === true ? 'FOR UPDATE' : ''}`,
    [id, teamId],
  );
  return toCamel<SessionRow>(requireRow(result.rows[0] as object | undefined, `session ${id}`));
}

/** For the machinery behind the API: any team, deleted or not. */
export async function findSession(db: Queryable, id: string): Promise<SessionRow | undefined> {
  const result = await db.query(`SELECT ${COLUMNS} FROM sessions WHERE id = $1`, [id]);
  return result.rows[0] === undefined ? undefined : toCamel<SessionRow>(result.rows[0] as object);
}

export interface SessionFilter extends CreatedRange {
  teamId: string;
  agentId?: string | undefined;
  agentVersion?: number | undefined;
  deploymentId?: string | undefined;
  statuses?: SessionStatus[] | undefined;
  label?: string | undefined;
  repo?: string | undefined;
  includeArchived: boolean;
}

export async function listSessions(db: Queryable, where: SessionFilter, page: PageRequest): Promise<Page<SessionRow>> {
  const filter = new Filter()
    .add('team_id = ?', where.teamId)
    .addFixed('deleted_at IS NULL')
    .add('agent_id = ?', where.agentId)
    .add('agent_version = ?', where.agentVersion)
    .add('deployment_id = ?', where.deploymentId)
    .add('status = ANY(?)', where.statuses)
    .add(
      `(labels @> ?::jsonb AND labels <> '[]')`,
      where.label === undefined ? undefined : JSON.stringify([where.label]),
    )
    .add('repo = ?', where.repo)
    .addCreated(where);
  if (!where.includeArchived) filter.addFixed('archived_at IS NULL');
  return selectPage<SessionRow>(db, `SELECT ${COLUMNS} FROM sessions`, filter, page);
}

export async function updateSession(
  tx: Queryable,
  id: string,
  fields: { title: string | null; metadata: Record<string, string>; budget: BudgetLimit | null },
): Promise<SessionRow> {
  const result = await tx.query(
    `UPDATE sessions SET title = $2, metadata = $3, budget = $4, updated_at = now() WHERE id = $1 RETURNING ${COLUMNS}`,
    [id, fields.title, JSON.stringify(fields.metadata), fields.budget === null ? null : JSON.stringify(fields.budget)],
  );
  return toCamel<SessionRow>(result.rows[0] as object);
}

/** The caller holds the lock of the session. */
export async function setResources(tx: Queryable, id: string, resources: StoredSessionResource[]): Promise<void> {
  await tx.query('UPDATE sessions SET resources = $2, updated_at = now() WHERE id = $1', [
    id,
    JSON.stringify(resources),
  ]);
}

/** No input is accepted from here on; archived ones stay readable, deleted ones do not. */
export async function setClosing(tx: Queryable, id: string, how: 'archived' | 'deleted'): Promise<void> {
  await tx.query(
    `UPDATE sessions SET closing_at = coalesce(closing_at, now()), updated_at = now(),
       archived_at = CASE WHEN $2 = 'archived' THEN coalesce(archived_at, now()) ELSE archived_at END,
       deleted_at = CASE WHEN $2 = 'deleted' THEN now() ELSE deleted_at END
     WHERE id = $1`,
    [id, how],
  );
}

/** Number of accepted messages no turn has taken yet; answers and interrupts do not queue. */
export async function countQueuedMessages(tx: Queryable, sessionId: string): Promise<number> {
  const result = await tx.query<{ queued: number }>(
    `SELECT count(*)::int AS queued FROM inputs
     WHERE session_id = $1 AND kind = 'message' AND state IN ('accepted', 'delivered')`,
    [sessionId],
  );
  return result.rows[0]?.queued ?? 0;
}

export async function hasOpenInputs(tx: Queryable, sessionId: string): Promise<boolean> {
  const result = await tx.query(
    `SELECT 1 FROM inputs WHERE session_id = $1 AND state IN ('accepted', 'delivered', 'in_turn') LIMIT 1`,
    [sessionId],
  );
  return result.rowCount !== 0;
}

/**
 * A workflow that is gone had these: messages and an asked end wait again for the next one; what was said about a turn
 * that is over is withdrawn.
 */
export async function requeueInputs(tx: Queryable, sessionId: string, reason: string): Promise<void> {
  // One statement: a start that marks its inputs delivered meanwhile must not see them cancelled.
  await tx.query(
    `UPDATE inputs SET delivered_at = NULL,
       state = CASE WHEN kind IN ('message', 'terminate') THEN 'accepted' ELSE 'cancelled' END,
       reason = CASE WHEN kind IN ('message', 'terminate') THEN NULL ELSE $2 END,
       ended_at = CASE WHEN kind IN ('message', 'terminate') THEN NULL ELSE now() END
     WHERE session_id = $1 AND state = 'delivered'`,
    [sessionId, reason],
  );
}

/** Inputs the workflow is not known to have, in order of acceptance. */
export async function listAcceptedInputs(db: Queryable, sessionId: string, limit: number): Promise<InputRow[]> {
  const result = await db.query(
    `SELECT i.event_id, i.session_id, i.kind, i.message, i.state, i.reason, i.turn
     FROM inputs i JOIN events e ON e.id = i.event_id
     WHERE i.session_id = $1 AND i.state = 'accepted' ORDER BY e.seq LIMIT $2`,
    [sessionId, limit],
  );
  return result.rows.map((row) => toCamel<InputRow>(row as object));
}

export async function markWorkflowStarted(db: Queryable, sessionId: string): Promise<void> {
  await db.query('UPDATE sessions SET workflow_started_at = now() WHERE id = $1 AND workflow_started_at IS NULL', [
    sessionId,
  ]);
}

/**
 * Sessions with inputs older than `olderThanMs` that their workflow is not known to have. In random order: a few that
 * cannot be delivered now must not keep the others waiting.
 */
export async function listUndeliveredSessions(db: Queryable, olderThanMs: number, limit: number): Promise<string[]> {
  const result = await db.query<{ session_id: string }>(
    `SELECT session_id FROM inputs
     WHERE state = 'accepted' AND created_at < now() - make_interval(secs => $1 / 1000.0)
     GROUP BY session_id ORDER BY random() LIMIT $2`,
    [olderThanMs, limit],
  );
  return result.rows.map((row) => row.session_id);
}

/** Sessions a crash may have left without a workflow; in random order for the same reason. */
export async function listNotStarted(db: Queryable, olderThanMs: number, limit: number): Promise<string[]> {
  const result = await db.query<{ id: string }>(
    `SELECT id FROM sessions
     WHERE workflow_started_at IS NULL AND status <> 'terminated' AND created_at < now() - make_interval(secs => $1 / 1000.0)
     ORDER BY random() LIMIT $2`,
    [olderThanMs, limit],
  );
  return result.rows.map((row) => row.id);
}

/**
 * Sessions that should be at work and have logged nothing for `quietMs`: their workflow may have been ended from outside.
 * In random order for the same reason.
 */
export async function listQuiet(db: Queryable, quietMs: number, limit: number): Promise<string[]> {
  const result = await db.query<{ id: string }>(
    `SELECT id FROM sessions
     WHERE status IN ('running', 'rescheduling') AND updated_at < now() - make_interval(secs => $1 / 1000.0)
     ORDER BY random() LIMIT $2`,
    [quietMs, limit],
  );
  return result.rows.map((row) => row.id);
}

/** Idle sessions (also those that wait for a person) that have logged nothing for `quietMs`, a page in order of id. */
export async function listIdle(
  db: Queryable,
  page: { after: string; quietMs: number; limit: number },
): Promise<string[]> {
  // The first condition is that of the index.
  const result = await db.query<{ id: string }>(
    `SELECT id FROM sessions
     WHERE status <> 'terminated' AND status = 'idle' AND id > $1 AND workflow_started_at IS NOT NULL
       AND updated_at < now() - make_interval(secs => $2 / 1000.0)
     ORDER BY id LIMIT $3`,
    [page.after, page.quietMs, page.limit],
  );
  return result.rows.map((row) => row.id);
}

/** Newest seq of each session a viewer watches. */
export async function lastSeqs(db: Queryable, sessionIds: string[]): Promise<Map<string, number>> {
  const result = await db.query<{ id: string; last_seq: number }>(
    'SELECT id, last_seq FROM sessions WHERE id = ANY($1)',
    [sessionIds],
  );
  return new Map(result.rows.map((row) => [row.id, row.last_seq]));
}

/** What the session workflow is started with; fits `SessionArgs` of workflows/messages.ts. */
export interface SessionStart<Input> {
  sessionId: string;
  title: string;
  agent: { id: string; version: number; name: string };
  limits: {
    maxStepsPerTurn: number;
    turnTimeoutMs: number;
    wallClockMs: number;
    idleMs: number;
    modelOutageMs: number;
  };
  lastTurn: number;
  harness?: string;
  inputs: Input[];
}

/** Builds the workflow's argument: defaults of LIMITS, narrowed by the session's own limits. */
export function sessionArgs<Input>(row: SessionRow, inputs: Input[]): SessionStart<Input> {
  return {
    sessionId: row.id,
    title: row.title ?? row.agent.name,
    agent: { id: row.agentId, version: row.agentVersion, name: row.agent.name },
    limits: {
      maxStepsPerTurn: row.limits.max_steps_per_turn ?? LIMITS.stepsPerTurn,
      turnTimeoutMs: row.limits.turn_timeout_ms ?? LIMITS.turnWallClockMs,
      wallClockMs: row.limits.wall_clock_ms ?? LIMITS.sessionWallClockMs,
      idleMs: row.limits.idle_ms ?? LIMITS.sessionIdleMs,
      modelOutageMs: LIMITS.modelOutageMs,
    },
    lastTurn: row.currentTurn,
    ...(row.agent.harness === 'native' ? {} : { harness: row.agent.harness }),
    inputs,
  };
}
