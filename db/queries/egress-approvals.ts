import type { ApprovalShown } from '../../contracts/definitions.ts';
import { newId } from '../../contracts/ids.ts';
import type { Pool, Queryable } from '../pool.ts';
import { withTransaction } from '../pool.ts';
import type { ApprovalRow } from './approvals.ts';
import { approvalDigest, consumeApproval, expireApproval } from './approvals.ts';
import { appendEvents } from './events.ts';

/** An answer that still holds. */
export interface EgressGrant {
  approvalId: string;
  isAllowed: boolean;
  expiresAt: Date;
}

/** The newest answer about a subject that has not run out. */
export async function findGrant(db: Queryable, sessionId: string, subject: string): Promise<EgressGrant | undefined> {
  const result = await db.query<{ approval_id: string; is_allowed: boolean; expires_at: Date }>(
    `SELECT approval_id, is_allowed, expires_at FROM egress_grants
     WHERE session_id = $1 AND subject = $2 AND expires_at > now() ORDER BY created_at DESC LIMIT 1`,
    [sessionId, subject],
  );
  const row = result.rows[0];
  return row && { approvalId: row.approval_id, isAllowed: row.is_allowed, expiresAt: row.expires_at };
}

export interface EgressQuestion {
  sessionId: string;
  teamId: string;
  subject: string;
  shown: ApprovalShown;
  policyVersion: string;
  expiresAt: Date;
  maxPending: number;
}

/**
 * The open question about a subject, asked now when there is none. `over`: the session has ended. `full`: too many of its
 * questions are open.
 */
export async function askEgress(
  pool: Pool,
  question: EgressQuestion,
): Promise<{ approvalId: string; expiresAt: Date } | 'over' | 'full'> {
  return withTransaction(pool, async (tx) => {
    const { sessionId, subject } = question;
    const session = await tx.query<{ over: boolean }>(
      `SELECT status = 'terminated' OR closing_at IS NOT NULL AS over FROM sessions WHERE id = $1 FOR UPDATE`,
      [sessionId],
    );
    if (session.rows[0]?.over !== false) return 'over';
    await expireOpen(tx, sessionId);
    const open = await tx.query<{ id: string; subject: string; expires_at: Date }>(
      `SELECT id, subject, expires_at FROM approvals WHERE session_id = $1 AND kind = 'egress' AND state = 'pending'`,
      [sessionId],
    );
    const same = open.rows.find((row) => row.subject === subject);
    if (same !== undefined) return { approvalId: same.id, expiresAt: same.expires_at };
    if (open.rows.length >= question.maxPending) return 'full';
    const approvalId = await insertQuestion(tx, question);
    return { approvalId, expiresAt: question.expiresAt };
  });
}

async function insertQuestion(tx: Queryable, question: EgressQuestion): Promise<string> {
  const { sessionId, shown, expiresAt } = question;
  const id = newId('approval');
  const digest = approvalDigest(shown);
  await tx.query(
    `INSERT INTO approvals (id, team_id, session_id, effect_id, subject, kind, generation, digest, shown, policy_version, state, expires_at)
     VALUES ($1, $2, $3, NULL, $4, 'egress', 1, $5, $6, $7, 'pending', $8)`,
    [
      id,
      question.teamId,
      sessionId,
      question.subject,
      digest,
      JSON.stringify(shown),
      question.policyVersion,
      expiresAt,
    ],
  );
  await appendEvents(tx, sessionId, [
    {
      type: 'session.approval_requested',
      dedupeKey: `approval/${id}`,
      payload: {
        approval_id: id,
        kind: 'egress',
        tool_use_id: null,
        tool: shown.tool,
        input: shown.input,
        reason: shown.reason,
        digest,
        expires_at: expiresAt.toISOString(),
      },
    },
  ]);
  return id;
}

async function expireOpen(tx: Queryable, sessionId: string): Promise<void> {
  const late = await tx.query<{ id: string }>(
    `SELECT id FROM approvals WHERE session_id = $1 AND kind = 'egress' AND state = 'pending' AND expires_at <= now()`,
    [sessionId],
  );
  for (const { id } of late.rows) await expireApproval(tx, id);
}

/** Makes a decision effective: what was approved is used up by the grant, which the broker reads. */
export async function grantEgress(tx: Queryable, approval: ApprovalRow, grantMs: number): Promise<void> {
  const isAllowed = approval.state === 'approved';
  await tx.query(
    `INSERT INTO egress_grants (approval_id, session_id, subject, is_allowed, expires_at)
     SELECT id, session_id, subject, $2, now() + make_interval(secs => $3 / 1000.0) FROM approvals WHERE id = $1
     ON CONFLICT (approval_id) DO NOTHING`,
    [approval.id, isAllowed, grantMs],
  );
  if (isAllowed) await consumeApproval(tx, approval.id);
  await appendEvents(tx, approval.sessionId, [
    {
      type: 'session.approval_decided',
      dedupeKey: `approval/${approval.id}/decided`,
      payload: {
        approval_id: approval.id,
        kind: 'egress',
        decision: approval.decision,
        message: approval.message,
        decided_by: approval.decidedBy,
      },
    },
  ]);
}

/** Closes questions nobody answered in time; returns how many. */
export async function expireEgressApprovals(pool: Pool, limit: number): Promise<number> {
  const late = await pool.query<{ id: string; session_id: string }>(
    `SELECT id, session_id FROM approvals WHERE kind = 'egress' AND state = 'pending' AND expires_at <= now() LIMIT $1`,
    [limit],
  );
  for (const { id, session_id: sessionId } of late.rows) {
    await withTransaction(pool, async (tx) => {
      await tx.query('SELECT 1 FROM sessions WHERE id = $1 FOR UPDATE', [sessionId]);
      await expireApproval(tx, id);
    });
  }
  return late.rows.length;
}

/** Which of these placeholders exist, and whose they are. */
export async function findPlaceholders(
  db: Queryable,
  placeholders: readonly string[],
): Promise<Map<string, { sessionId: string; name: string }>> {
  const result = await db.query<{ placeholder: string; session_id: string; name: string }>(
    'SELECT placeholder, session_id, name FROM session_credentials WHERE placeholder = ANY($1)',
    [placeholders],
  );
  return new Map(result.rows.map((row) => [row.placeholder, { sessionId: row.session_id, name: row.name }]));
}
