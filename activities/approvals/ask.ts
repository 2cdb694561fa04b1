import type { ApprovalShown } from '../../contracts/definitions.ts';
import { LIMITS } from '../../contracts/limits.ts';
import type { Queryable } from '../../db/pool.ts';
import { insertApproval } from '../../db/queries/approvals.ts';
import { appendEvents } from '../../db/queries/events.ts';
import type { EffectDraft, EffectRow } from '../../db/queries/effects.ts';
import { listFilesRead } from '../../db/queries/effects.ts';
import { currentSandbox } from '../../db/queries/sandboxes.ts';
import type { SessionForTurn } from '../../db/queries/session-status.ts';
import type { ActivityDeps } from '../deps.ts';
import { derivedId } from '../digest.ts';
import { currentCredentials } from '../sandbox/credentials.ts';
import { networkOf, reachOf } from '../sandbox/network.ts';
import type { SandboxNetwork } from '../sandbox/port.ts';
import { POLICY_VERSION } from '../model/policy.ts';
import { previewOf } from './preview.ts';

const FILES_SHOWN = 50;
const CREDENTIALS_SHOWN = 50;

interface Ask {
  session: SessionForTurn;
  effect: EffectDraft | EffectRow;
  kind: 'effect' | 'lost_effect';
  generation: number;
  reason: string;
  /** From `sandboxFacts`, read outside the transaction. */
  sandbox: SandboxFacts;
}

/** What a person should know of the place where a call would run. */
export interface SandboxFacts {
  provider: string;
  isolation: string;
  network: string;
  /** Names of credentials that the egress broker would put in for it. */
  credentials: string[];
}

/** What a person should know of the place where the call would run, as the provider itself says. */
export async function sandboxFacts(deps: ActivityDeps, session: SessionForTurn): Promise<SandboxFacts> {
  const { environment } = session;
  const unknown = { provider: 'self_hosted', isolation: 'unknown', network: 'unknown', credentials: [] };
  if (environment.type !== 'cloud') return unknown;
  const [capabilities, row, credentials] = await Promise.all([
    deps.sandboxProvider(environment.provider).capabilities(),
    currentSandbox(deps.pool, session.id),
    currentCredentials(deps, session.id),
  ]);
  const network = (row?.network ??
    networkOf(capabilities, environment, deps.egress && { proxy: null })) as SandboxNetwork;
  return {
    provider: environment.provider,
    isolation: capabilities.isolation,
    network: reachOf(network, environment),
    credentials: network.type === 'broker' ? credentials.map(({ name }) => name).slice(0, CREDENTIALS_SHOWN) : [],
  };
}

/** Writes the question with everything a person needs to judge it; the same question is asked once. */
export async function askHuman(tx: Queryable, ask: Ask): Promise<{ approvalId: string; expiresAtMs: number }> {
  const { session, effect } = ask;
  const ttlMs = Math.min(session.limits.approval_ttl_ms ?? LIMITS.approvalTtlMs, LIMITS.approvalTtlMaxMs);
  const expiresAt = new Date(Date.now() + ttlMs);
  const [sandbox, filesRead] = await Promise.all([
    currentSandbox(tx, session.id),
    listFilesRead(tx, session.id, FILES_SHOWN),
  ]);
  const { provider, isolation, network, credentials } = ask.sandbox;
  const preview = previewOf(effect.tool, effect.input);
  const shown: ApprovalShown = {
    kind: ask.kind,
    effect_id: effect.id,
    tool: effect.tool,
    input: effect.input,
    preview: preview.text,
    preview_truncated: preview.truncated,
    sandbox: { id: sandbox?.id ?? null, provider, isolation, network },
    credentials,
    files_read: filesRead,
    hosts_touched: [],
    agent: { id: session.agentId, version: session.agentVersion, name: session.agent.name },
    session_id: session.id,
    started_by: session.createdBy,
    reason: ask.reason,
    expires_at: expiresAt.toISOString(),
  };
  const row = await insertApproval(tx, {
    id: derivedId('approval', `${effect.id}/${ask.kind}/${ask.generation}`),
    teamId: session.teamId,
    sessionId: session.id,
    effectId: effect.id,
    kind: ask.kind,
    generation: ask.generation,
    shown,
    policyVersion: POLICY_VERSION,
    expiresAt,
  });
  await appendEvents(tx, session.id, [
    {
      type: 'session.approval_requested',
      dedupeKey: `approval/${row.id}`,
      payload: {
        approval_id: row.id,
        kind: row.kind,
        tool_use_id: effect.id,
        tool: effect.tool,
        reason: ask.reason,
        digest: row.digest,
        expires_at: row.expiresAt.toISOString(),
      },
    },
  ]);
  return { approvalId: row.id, expiresAtMs: row.expiresAt.getTime() };
}
