import type { BudgetLimit } from '../../contracts/definitions.ts';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { sessionPath } from '../../contracts/events.ts';
import { session, sessionUpdate } from '../../contracts/sessions.ts';
import type { Queryable } from '../../db/pool.ts';
import { findSessionSpend, putSessionBudget } from '../../db/queries/budgets.ts';
import { appendEvents } from '../../db/queries/events.ts';
import type { SessionRow } from '../../db/queries/sessions.ts';
import { getSession, updateSession as saveSession } from '../../db/queries/sessions.ts';
import { usageOfSessions } from '../../db/queries/usage.ts';
import { requireOpen } from '../accept-events.ts';
import { requireBudgetable } from '../budget.ts';
import { patchMetadata, patchText } from '../definitions.ts';
import { endpoint } from '../endpoint.ts';
import { renderOneSession } from '../render/sessions.ts';

const MICROS_PER_CENT = 10_000;

export const updateSession = endpoint({
  method: 'post',
  path: '/v1/sessions/{session_id}',
  tag: 'Sessions',
  summary: 'Change title, metadata or budget of a session',
  description: 'A budget may only be given when the session is created; later it may be raised or removed.',
  params: sessionPath,
  body: sessionUpdate,
  response: session,
  async handle({ db, principal }, { params, body }) {
    const before = await getSession(db, principal.teamId, params.session_id, { lock: true });
    requireOpen(before);
    const fields = {
      title: patchText(before.title, body.title),
      metadata: patchMetadata(before.metadata, body.metadata),
      budget: await nextBudget(db, before, body.budget),
    };
    const row = await saveSession(db, before.id, fields);
    if (body.budget !== undefined) await putSessionBudget(db, row, fields.budget);
    const changed = {
      ...(body.title === undefined ? {} : { title: fields.title }),
      ...(body.metadata === undefined ? {} : { metadata: fields.metadata }),
      ...(body.budget === undefined ? {} : { budget: fields.budget }),
    };
    if (Object.keys(changed).length > 0) {
      await appendEvents(db, row.id, [{ type: 'session.updated', payload: changed }]);
    }
    return renderOneSession(db, row);
  },
});

async function nextBudget(
  db: Queryable,
  before: SessionRow,
  budget: BudgetLimit | null | undefined,
): Promise<BudgetLimit | null> {
  if (budget === undefined) return before.budget;
  if (budget === null) return null;
  if (before.budget === null) {
    throw new LonghaulError('budget_create_only', 'this session was created without a budget', { field: 'budget' });
  }
  const usage = await usageOfSessions(db, [before.id]);
  // The pool also counts sessions that this one started.
  const spentMicros = Math.max(usage.get(before.id)?.costMicros ?? 0, (await findSessionSpend(db, before.id)) ?? 0);
  if (Number(budget.max_list_cost.amount) * MICROS_PER_CENT <= spentMicros) {
    throw new LonghaulError('budget_not_raised', `the session has spent ${spentMicros} micro-dollars already`, {
      field: 'budget.max_list_cost.amount',
    });
  }
  await requireBudgetable(db, before.teamId, { model: before.agent.model.id, budget, field: 'budget' });
  return budget;
}
