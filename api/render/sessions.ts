import type { SessionResource, SessionUsageResource } from '../../contracts/sessions.ts';
import type { Queryable } from '../../db/pool.ts';
import type { Attention } from '../../db/queries/attention.ts';
import { attentionOf } from '../../db/queries/attention.ts';
import type { SandboxRow } from '../../db/queries/sandboxes.ts';
import { lastSandboxes } from '../../db/queries/sandboxes.ts';
import type { SessionRow } from '../../db/queries/sessions.ts';
import type { UsageSum } from '../../db/queries/usage.ts';
import { NO_USAGE, usageOfSessions } from '../../db/queries/usage.ts';
import { renderResource } from '../session-resources.ts';
import { renderDefinition } from './agents.ts';
import { renderSandbox } from './sandboxes.ts';
import { isoOrNull } from './times.ts';

const MICROS_PER_CENT = 10_000;

/** Sessions with what the ledger says they spent. */
export async function renderSessions(db: Queryable, rows: SessionRow[]): Promise<SessionResource[]> {
  const ids = rows.map((row) => row.id);
  const [usage, sandboxes] = [await usageOfSessions(db, ids), await lastSandboxes(db, ids)];
  const attention = await attentionOf(db, ids);
  return rows.map((row) => ({
    ...renderSession(row, usage.get(row.id) ?? NO_USAGE, sandboxes.get(row.id)),
    attention: renderAttention(attention.get(row.id)),
  }));
}

export async function renderOneSession(db: Queryable, row: SessionRow): Promise<SessionResource> {
  const [rendered] = await renderSessions(db, [row]);
  if (rendered === undefined) throw new Error('one row makes one session');
  return rendered;
}

function renderAttention(found: Attention | undefined): SessionResource['attention'] {
  return { pending_approval_ids: found?.pendingApprovalIds ?? [], security_events: found?.securityEvents ?? 0 };
}

function renderSession(
  row: SessionRow,
  usage: UsageSum,
  sandbox: SandboxRow | undefined,
): Omit<SessionResource, 'attention'> {
  return {
    id: row.id,
    type: 'session',
    agent: renderDefinition({ id: row.agentId, version: row.agentVersion, definition: row.agent }),
    environment_id: row.environmentId,
    status: row.status,
    stop_reason: row.stopReason,
    title: row.title,
    metadata: row.metadata,
    budget: row.budget,
    limits: row.limits,
    resources: row.resources.map(renderResource),
    vault_ids: row.vaultIds,
    outcome_evaluations: [],
    deployment_id: row.deploymentId,
    labels: row.labels,
    repo: row.repo,
    trigger: row.trigger,
    sandbox: renderSandbox(sandbox),
    usage: renderUsage(usage, activeSeconds(row)),
    stats: renderStats(row),
    created_at: row.createdAt.toISOString(),
    updated_at: row.updatedAt.toISOString(),
    archived_at: isoOrNull(row.archivedAt),
  };
}

export function renderStats(row: SessionRow): SessionResource['stats'] {
  const endMs = (row.terminatedAt ?? new Date()).getTime();
  return { active_seconds: activeSeconds(row), duration_seconds: (endMs - row.createdAt.getTime()) / 1_000 };
}

export function renderUsage(sum: UsageSum, seconds: number): SessionUsageResource {
  return { ...renderSum(sum), active_seconds: seconds };
}

/** Tokens and cost of a sum; cents are rounded up, so that a spent fraction is never shown as nothing. */
export function renderSum(sum: UsageSum): Omit<SessionUsageResource, 'active_seconds'> {
  return {
    input_tokens: sum.inputTokens,
    output_tokens: sum.outputTokens,
    cache_read_input_tokens: sum.cacheReadTokens,
    cache_creation: {
      ephemeral_5m_input_tokens: sum.cacheWrite5mTokens,
      ephemeral_1h_input_tokens: sum.cacheWrite1hTokens,
    },
    list_cost:
      sum.costMicros === null ? null : { amount: String(Math.ceil(sum.costMicros / MICROS_PER_CENT)), currency: 'USD' },
    cost_micros: sum.costMicros,
  };
}

export function activeSeconds(row: SessionRow): number {
  const runningMs = row.runningSince === null ? 0 : Math.max(0, Date.now() - row.runningSince.getTime());
  return (row.activeMs + runningMs) / 1_000;
}
