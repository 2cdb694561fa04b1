import { budgetPath, budgetPool } from '../../contracts/budgets.ts';
import { insertAudit } from '../../db/queries/audit.ts';
import { archiveBudget as archive, getBudget } from '../../db/queries/budgets.ts';
import { actorOf } from '../actor.ts';
import { requireOwnBudget } from '../budget.ts';
import { endpoint } from '../endpoint.ts';
import { requireUnlimitedKey } from '../key-changes.ts';
import { renderBudget } from '../render/budgets.ts';

export const archiveBudget = endpoint({
  method: 'post',
  path: '/v1/budgets/{budget_id}/archive',
  tag: 'Budgets',
  summary: 'Archive a budget: it pays for no call and bounds none any more',
  params: budgetPath,
  response: budgetPool,
  async handle({ db, principal }, { params }) {
    requireUnlimitedKey(principal);
    const before = await getBudget(db, principal.teamId, params.budget_id, { lock: true });
    requireOwnBudget(before, principal.teamId, { evenArchived: true });
    if (before.archivedAt !== null) return renderBudget(before);
    const row = await archive(db, before);
    await insertAudit(db, {
      teamId: principal.teamId,
      actor: actorOf(principal),
      action: 'budget.archive',
      resource: row.id,
    });
    return renderBudget(row);
  },
});
