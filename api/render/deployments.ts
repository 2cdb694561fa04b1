import type { DeploymentResource, DeploymentRunResource } from '../../contracts/deployments.ts';
import type { Queryable } from '../../db/pool.ts';
import type { DeploymentRunRow } from '../../db/queries/deployment-runs.ts';
import { lastScheduledRuns } from '../../db/queries/deployment-runs.ts';
import type { DeploymentRow } from '../../db/queries/deployments.ts';
import { upcomingRuns } from '../schedules.ts';
import { isoOrNull } from './times.ts';

/** Deployments with their firings as the rows tell them. `agent.version` is the newest when none is pinned. */
export async function renderDeployments(db: Queryable, rows: DeploymentRow[]): Promise<DeploymentResource[]> {
  const last = await lastScheduledRuns(
    db,
    rows.map((row) => row.id),
  );
  return rows.map((row) => renderDeployment(row, { upcoming: upcomingRuns(row), last: last.get(row.id) ?? null }));
}

export async function renderOneDeployment(db: Queryable, row: DeploymentRow): Promise<DeploymentResource> {
  const last = await lastScheduledRuns(db, [row.id]);
  return renderDeployment(row, { upcoming: upcomingRuns(row), last: last.get(row.id) ?? null });
}

export function renderDeployment(
  row: DeploymentRow,
  times: { upcoming: string[]; last: string | null },
): DeploymentResource {
  return {
    id: row.id,
    type: 'deployment',
    name: row.name,
    description: row.description,
    agent: { type: 'agent', id: row.agentId, version: row.agentVersion ?? row.latestVersion },
    environment_id: row.environmentId,
    initial_events: row.initialEvents.map((event) => ({ ...event })),
    schedule:
      row.schedule === null
        ? null
        : { ...row.schedule, last_run_at: canonicalTime(times.last), upcoming_runs_at: times.upcoming },
    status: row.status,
    paused_reason: row.pausedReason,
    budget: row.budget,
    limits: row.limits,
    resources: row.resources,
    vault_ids: row.vaultIds,
    labels: row.labels,
    repo: row.repo,
    metadata: row.metadata,
    created_at: row.createdAt.toISOString(),
    updated_at: row.updatedAt.toISOString(),
    archived_at: isoOrNull(row.archivedAt),
  };
}

function canonicalTime(text: string | null): string | null {
  return text === null ? null : new Date(text).toISOString();
}

export function renderRun(row: DeploymentRunRow): DeploymentRunResource {
  return {
    id: row.id,
    type: 'deployment_run',
    deployment_id: row.deploymentId,
    agent: { type: 'agent', id: row.agentId, version: row.agentVersion },
    session_id: row.sessionId,
    trigger_context: row.triggerContext,
    status: row.status,
    error: row.error,
    created_at: row.createdAt.toISOString(),
    ended_at: isoOrNull(row.endedAt),
  };
}
