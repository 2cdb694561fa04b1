import { createHash } from 'node:crypto';
import canonicalize from 'canonicalize';
import type { ApprovalShown } from '../../contracts/definitions.ts';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { newId } from '../../contracts/ids.ts';
import type { ApprovalDecision, ApprovalKind, ApprovalState } from '../../contracts/states.ts';
import { assertNever } from '../../contracts/states.ts';
import type { Page, PageRequest } from '../paging.ts';
import { Filter, selectPage } from '../paging.ts';
import type { Queryable } from '../pool.ts';
import { requireRow } from '../pool.ts';
import { toCamel } from '../rows.ts';
import { insertAudit } from './audit.ts';

export interface ApprovalRow {
  id: string;
  teamId: string;
  sessionId: string;
  /** null: about the network. */
  effectId: string | null;
  kind: ApprovalKind;
  generation: number;
  digest: string;
  shown: ApprovalShown;
  policyVersion: string;
  state: ApprovalState;
  decision: ApprovalDecision | null;
  editedInput: Record<string, unknown> | null;
  message: string | null;
  decidedBy: string | null;
  decidedAt: Date | null;
  expiresAt: Date;
  consumedAt: Date | null;
  createdAt: Date;
}

const COLUMNS = `id, team_id, session_id, effect_id, kind, generation, digest, shown, policy_version, state, decision,
  edited_input, message, decided_by, decided_at, expires_at, consumed_at, created_at`;

/** SHA-256 (hex) of the RFC 8785 canonical JSON of what is shown. */
export function approvalDigest(shown: ApprovalShown): string {
  return createHash('sha256')
    .update(canonicalize(shown) ?? '')
    .digest('hex');
}

/** Asks once per (effect, kind, generation): a retried activity gets the row it made before. */
export async function insertApproval(
  tx: Queryable,
  draft: {
    id?: string;
    teamId: string;
    sessionId: string;
    effectId: string;
    kind: ApprovalKind;
    generation: number;
    shown: ApprovalShown;
    policyVersion: string;
    expiresAt: Date;
  },
): Promise<ApprovalRow> {
  await tx.query(
    `INSERT INTO approvals (id, team_id, session_id, effect_id, kind, generation, digest, shown, policy_version, state, expires_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'pending', $10)
     ON CONFLICT (effect_id, kind, generation) DO NOTHING`,
    [
      draft.id ?? newId('approval'),
      draft.teamId,
      draft.sessionId,
      draft.effectId,
      draft.kind,
      draft.generation,
      approvalDigest(draft.shown),
      JSON.stringify(draft.shown),
      draft.policyVersion,
      draft.expiresAt,
    ],
  );
  const result = await tx.query(
    `SELECT ${COLUMNS} FROM approvals WHERE effect_id = $1 AND kind = $2 AND generation = $3`,
    [draft.effectId, draft.kind, draft.generation],
  );
  return toCamel<ApprovalRow>(result.rows[0] as object);
}

export async function getApproval(db: Queryable, id: string): Promise<ApprovalRow | undefined> {
  const result = await db.query(`SELECT ${COLUMNS} FROM approvals WHERE id = $1`, [id]);
  return result.rows[0] === undefined ? undefined : toCamel<ApprovalRow>(result.rows[0] as object);
}

/** The approval an effect waits for now. */
export async function findPendingForEffect(db: Queryable, effectId: string): Promise<ApprovalRow | undefined> {
  const result = await db.query(
    `SELECT ${COLUMNS} FROM approvals WHERE effect_id = $1 AND state = 'pending' ORDER BY created_at DESC LIMIT 1`,
    [effectId],
  );
  return result.rows[0] === undefined ? undefined : toCamel<ApprovalRow>(result.rows[0] as object);
}

/** The newest approval of an effect, whatever its state. */
export async function findLatestForEffect(db: Queryable, effectId: string): Promise<ApprovalRow | undefined> {
  const result = await db.query(
    `SELECT ${COLUMNS} FROM approvals WHERE effect_id = $1 ORDER BY created_at DESC, generation DESC LIMIT 1`,
    [effectId],
  );
  return result.rows[0] === undefined ? undefined : toCamel<ApprovalRow>(result.rows[0] as object);
}

export interface Decide {
  approvalId: string;
  decision: ApprovalDecision;
  /** Who decided, as our own token says: `user:<id>`. */
  decidedBy: string;
  message?: string | undefined;
  /** Edited arguments; `allow` only. */
  editedInput?: Record<string, unknown> | undefined;
}

/**
 * The one way an approval is decided. The same decision again, by anyone, is a repeat without effect; another one is
 * `already_decided`.
 */
export async function decideApproval(
  tx: Queryable,
  decide: Decide,
): Promise<{ outcome: 'decided' | 'repeated'; approval: ApprovalRow }> {
  const locked = await tx.query(
    `SELECT ${COLUMNS}, expires_at <= now() AS late FROM approvals WHERE id = $1 FOR UPDATE`,
    [decide.approvalId],
  );
  const { late, ...before } = toCamel<ApprovalRow & { late: boolean }>(
    requireRow(locked.rows[0] as object | undefined, `approval ${decide.approvalId}`),
  );
  requireFitting(before.kind, decide);
  if (before.state !== 'pending') return repeated(before, decide);
  if (late)
    throw new LonghaulError('approval_expired', `approval ${before.id} expired at ${before.expiresAt.toISOString()}`);
  const granted = isGrant(decide.decision);
  const digest =
    decide.editedInput === undefined ? before.digest : approvalDigest({ ...before.shown, input: decide.editedInput });
  const updated = await tx.query(
    `UPDATE approvals SET state = $2, decision = $3, decided_by = $4, decided_at = now(), message = $5, edited_input = $6, digest = $7
     WHERE id = $1 AND state = 'pending' RETURNING ${COLUMNS}`,
    [
      before.id,
      granted ? 'approved' : 'denied',
      decide.decision,
      decide.decidedBy,
      decide.message ?? null,
      decide.editedInput === undefined ? null : JSON.stringify(decide.editedInput),
      digest,
    ],
  );
  await insertAudit(tx, {
    teamId: before.teamId,
    actor: decide.decidedBy,
    action: 'approval.decide',
    resource: before.id,
    sessionId: before.sessionId,
    decision: decide.decision,
    digest,
    details: {
      effect_id: before.effectId,
      tool: before.shown.tool,
      policy_version: before.policyVersion,
      ...(decide.editedInput === undefined
        ? {}
        : { original_digest: before.digest, original_input: before.shown.input, edited_input: decide.editedInput }),
    },
  });
  return { outcome: 'decided', approval: toCamel<ApprovalRow>(updated.rows[0] as object) };
}

/** True for decisions that let something run; they are consumed by its start. */
function isGrant(decision: ApprovalDecision): boolean {
  switch (decision) {
    case 'allow':
    case 'done':
    case 'retry':
      return true;
    case 'deny':
    case 'skip':
      return false;
    default:
      return assertNever(decision);
  }
}

function requireFitting(kind: ApprovalKind, decide: Decide): void {
  const fitting: readonly ApprovalDecision[] = kind === 'lost_effect' ? ['done', 'retry', 'skip'] : ['allow', 'deny'];
  if (!fitting.includes(decide.decision)) {
    throw new LonghaulError('invalid_request', `must be one of ${fitting.join(', ')} here`, { field: 'decision' });
  }
  if (decide.editedInput !== undefined && kind === 'egress') {
    throw new LonghaulError('invalid_request', 'what is asked about the network cannot be edited', { field: 'input' });
  }
  if (decide.editedInput !== undefined && decide.decision !== 'allow') {
    throw new LonghaulError('invalid_request', 'arguments may be edited with allow only', { field: 'input' });
  }
}

function repeated(before: ApprovalRow, decide: Decide): { outcome: 'repeated'; approval: ApprovalRow } {
  if (before.state === 'expired') throw new LonghaulError('approval_expired', `approval ${before.id} has expired`);
  if (before.decision === null)
    throw new LonghaulError('no_pending_action', `approval ${before.id} was ${before.state}`);
  const sameInput = canonicalize(before.editedInput ?? null) === canonicalize(decide.editedInput ?? null);
  if (before.decision === decide.decision && sameInput) return { outcome: 'repeated', approval: before };
  throw new LonghaulError(
    'already_decided',
    `approval ${before.id} was already decided: ${before.decision}${sameInput ? '' : ' with other arguments'}`,
  );
}

/** The start of the effect uses the grant up; false when it is not (or no longer) granted. */
export async function consumeApproval(tx: Queryable, approvalId: string): Promise<boolean> {
  const result = await tx.query(
    `UPDATE approvals SET state = 'consumed', consumed_at = now() WHERE id = $1 AND state = 'approved'`,
    [approvalId],
  );
  return result.rowCount === 1;
}

/** Nobody answered in time; false when somebody did. */
export async function expireApproval(tx: Queryable, id: string): Promise<boolean> {
  const result = await tx.query(
    `UPDATE approvals SET state = 'expired' WHERE id = $1 AND state = 'pending' RETURNING team_id, session_id, digest`,
    [id],
  );
  return auditMoved(tx, 'approval.expire', id, result.rows[0] as MovedRow | undefined);
}

/** Withdraws what a session still asks (all of it, or that of some effects); returns the ids. */
export async function cancelApprovals(tx: Queryable, sessionId: string, effectIds?: string[]): Promise<string[]> {
  const result = await tx.query<MovedRow & { id: string }>(
    `UPDATE approvals SET state = 'cancelled'
     WHERE session_id = $1 AND state IN ('pending', 'approved') AND ($2::text[] IS NULL OR effect_id = ANY($2))
     RETURNING id, team_id, session_id, digest`,
    [sessionId, effectIds ?? null],
  );
  for (const row of result.rows) await auditMoved(tx, 'approval.cancel', row.id, row);
  return result.rows.map((row) => row.id);
}

interface MovedRow {
  team_id: string;
  session_id: string;
  digest: string;
}

async function auditMoved(tx: Queryable, action: string, id: string, row: MovedRow | undefined): Promise<boolean> {
  if (row === undefined) return false;
  await insertAudit(tx, {
    teamId: row.team_id,
    actor: 'workflow',
    action,
    resource: id,
    sessionId: row.session_id,
    digest: row.digest,
  });
  return true;
}

export async function listApprovals(
  db: Queryable,
  where: { teamId: string; state?: ApprovalState | undefined; sessionId?: string | undefined },
  page: PageRequest,
): Promise<Page<ApprovalRow>> {
  const filter = new Filter()
    .add('team_id = ?', where.teamId)
    .add('state = ?', where.state)
    .add('session_id = ?', where.sessionId);
  return selectPage<ApprovalRow>(db, `SELECT ${COLUMNS} FROM approvals`, filter, page);
}
