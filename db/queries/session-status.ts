import type { AgentDefinition, BudgetLimit, EnvironmentConfig, SessionLimits } from '../../contracts/definitions.ts';
import { completeEnvironment } from '../../contracts/environment-defaults.ts';
import type { StoredSessionResource } from '../../contracts/session-resources.ts';
import type { SessionStatus, StopReason } from '../../contracts/states.ts';
import type { Queryable } from '../pool.ts';
import { requireRow } from '../pool.ts';
import { toCamel } from '../rows.ts';
import type { EventDraft } from './events.ts';
import { appendEvents } from './events.ts';

/** What activities need of a session row. */
export interface SessionForTurn {
  id: string;
  teamId: string;
  createdBy: string;
  agentId: string;
  agentVersion: number;
  agent: AgentDefinition;
  environment: EnvironmentConfig;
  environmentId: string;
  resources: StoredSessionResource[];
  limits: SessionLimits;
  budget: BudgetLimit | null;
  deploymentId: string | null;
  status: SessionStatus;
}

/** The session's fixed definition. Throws `not_found`. */
export async function loadSessionForTurn(db: Queryable, sessionId: string): Promise<SessionForTurn> {
  const result = await db.query(
    `SELECT id, team_id, created_by, agent_id, agent_version, agent, environment, environment_id, resources, limits,
            budget, deployment_id, status
     FROM sessions WHERE id = $1`,
    [sessionId],
  );
  const row = toCamel<SessionForTurn>(requireRow<object>(result.rows[0], `session ${sessionId}`));
  return { ...row, environment: completeEnvironment(row.environment) };
}

/**
 * The session row is the first lock of every transaction about a session, so that no two of them can wait for each
 * other. Returns its status.
 */
export async function lockSession(tx: Queryable, sessionId: string): Promise<SessionStatus> {
  const result = await tx.query<{ status: SessionStatus }>('SELECT status FROM sessions WHERE id = $1 FOR UPDATE', [
    sessionId,
  ]);
  return requireRow(result.rows[0], `session ${sessionId}`).status;
}

/** Marks the session running and says so in the log, unless it runs already or is terminated; then appends `more`. */
export async function setRunning(tx: Queryable, sessionId: string, more: EventDraft[] = []): Promise<void> {
  const moved = await tx.query(
    `UPDATE sessions SET status = 'running', stop_reason = NULL, running_since = coalesce(running_since, now())
     WHERE id = $1 AND status IN ('idle', 'rescheduling') RETURNING id`,
    [sessionId],
  );
  if (moved.rowCount !== 0) {
    await tx.query('UPDATE sandboxes SET idle_since = NULL WHERE session_id = $1 AND idle_since IS NOT NULL', [
      sessionId,
    ]);
  }
  const running = moved.rowCount === 0 ? [] : [{ type: 'session.status_running' }];
  await appendEvents(tx, sessionId, [...running, ...more]);
}

/** Marks the session idle with its reason; nothing happens when it is terminated. */
export async function setIdle(
  tx: Queryable,
  sessionId: string,
  stopReason: StopReason,
  dedupeKey: string,
): Promise<void> {
  const moved = await tx.query(
    `UPDATE sessions SET status = 'idle', stop_reason = $2, running_since = NULL,
       active_ms = active_ms + coalesce((extract(epoch FROM now() - running_since) * 1000)::bigint, 0)
     WHERE id = $1 AND status <> 'terminated' RETURNING id`,
    [sessionId, JSON.stringify(stopReason)],
  );
  if (moved.rowCount === 0) return;
  // The clock of the idle policy: kept here, where a session begins to wait, and by the database's time.
  await tx.query(`UPDATE sandboxes SET idle_since = now() WHERE session_id = $1 AND state <> 'destroyed'`, [sessionId]);
  await appendEvents(tx, sessionId, [
    {
      type: 'session.status_idle',
      payload: { stop_reason: clientStopReason(stopReason), stop_details: null },
      dedupeKey,
    },
  ]);
}

/** The model is away: the session waits for it and goes on by itself. */
export async function setRescheduling(tx: Queryable, sessionId: string): Promise<void> {
  const moved = await tx.query(
    `UPDATE sessions SET status = 'rescheduling' WHERE id = $1 AND status IN ('running', 'idle') RETURNING id`,
    [sessionId],
  );
  if (moved.rowCount !== 0) await appendEvents(tx, sessionId, [{ type: 'session.status_rescheduled' }]);
}

/** Stop is final: no later call can move the session again. Returns false when it was terminated already. */
export async function setTerminated(tx: Queryable, sessionId: string, reason: string): Promise<boolean> {
  const moved = await tx.query(
    `UPDATE sessions SET status = 'terminated', terminated_at = now(), closing_at = coalesce(closing_at, now()),
       stop_reason = $2, running_since = NULL,
       active_ms = active_ms + coalesce((extract(epoch FROM now() - running_since) * 1000)::bigint, 0)
     WHERE id = $1 AND status <> 'terminated' RETURNING id`,
    [sessionId, JSON.stringify({ type: 'terminated', reason })],
  );
  if (moved.rowCount === 0) return false;
  await appendEvents(tx, sessionId, [
    { type: 'session.status_terminated', payload: { reason }, dedupeKey: 'terminated' },
  ]);
  return true;
}

/**
 * Clients of the Managed Agents API know five stop reasons; ours that they do not know are told as the nearest one,
 * with the exact word beside it.
 */
function clientStopReason(reason: StopReason): Record<string, unknown> {
  switch (reason.type) {
    case 'end_turn':
    case 'requires_action':
    case 'retries_exhausted':
    case 'budget_reached':
    case 'refusal':
      return { ...reason };
    case 'interrupted':
    case 'max_tokens':
      return { type: 'end_turn', detail: reason.type };
    case 'max_steps':
    case 'turn_timeout':
    case 'context_full':
      return { type: 'retries_exhausted', detail: reason.type };
  }
}
