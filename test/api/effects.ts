import type { ApprovalShown } from '../../contracts/definitions.ts';
import { newId } from '../../contracts/ids.ts';
import type { ApprovalKind } from '../../contracts/states.ts';
import type { Pool } from '../../db/pool.ts';
import { insertApproval } from '../../db/queries/approvals.ts';
import { insertEffects } from '../../db/queries/effects.ts';

let position = 0;

/** A tool call of turn 1, step 1, as the worker would have recorded it. */
export async function makeEffect(
  pool: Pool,
  sessionId: string,
  kind: 'builtin' | 'custom' | 'harness',
  state: 'waiting' | 'unknown' | 'proposed' = 'waiting',
): Promise<string> {
  await pool.query(
    `INSERT INTO turns (session_id, turn, state, model) VALUES ($1, 1, 'running', 'scripted') ON CONFLICT DO NOTHING`,
    [sessionId],
  );
  await pool.query(
    `INSERT INTO steps (session_id, turn, step, model, stop_reason, content, usage)
     VALUES ($1, 1, 1, 'scripted', 'tool_use', '[]', '{}') ON CONFLICT DO NOTHING`,
    [sessionId],
  );
  const id = newId('event');
  position += 1;
  await insertEffects(pool, [
    {
      id,
      sessionId,
      turn: 1,
      step: 1,
      position,
      toolUseId: `toolu_${position}`,
      tool: kind === 'custom' ? 'lookup' : 'bash',
      kind,
      idempotent: false,
      input: { command: 'rm -r build' },
      digest: 'd'.repeat(64),
      state,
      verdict: 'ask',
      verdictReason: 'always_ask',
      result: null,
      isError: null,
    },
  ]);
  return id;
}

export function shownFor(sessionId: string, effectId: string, kind: ApprovalKind = 'effect'): ApprovalShown {
  return {
    kind,
    effect_id: effectId,
    tool: 'bash',
    input: { command: 'rm -r build' },
    preview: 'rm -r build',
    preview_truncated: false,
    sandbox: { id: null, provider: 'local', isolation: 'namespace', network: 'none' },
    credentials: [],
    files_read: [],
    hosts_touched: [],
    agent: { id: 'agent_x', version: 1, name: 'Helper' },
    session_id: sessionId,
    started_by: 'ada',
    reason: 'always_ask',
    expires_at: '2099-01-01T00:00:00.000Z',
  };
}

export async function makeApproval(
  pool: Pool,
  sessionId: string,
  effectId: string,
  options: { kind?: ApprovalKind; expiresAt?: Date; teamId?: string } = {},
): Promise<string> {
  const kind = options.kind ?? 'effect';
  const row = await insertApproval(pool, {
    teamId: options.teamId ?? 'team-a',
    sessionId,
    effectId,
    kind,
    generation: 1,
    shown: shownFor(sessionId, effectId, kind),
    policyVersion: 'test-1',
    expiresAt: options.expiresAt ?? new Date('2099-01-01T00:00:00Z'),
  });
  return row.id;
}
