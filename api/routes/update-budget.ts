import { budgetPath, budgetPool, budgetUpdate } from '../../contracts/budgets.ts';
import { insertAudit } from '../../db/queries/audit.ts';
import { getBudget, updateBudget as saveBudget } from '../../db/queries/budgets.ts';
import { actorOf } from '../actor.ts';
import { changedBudgetFields } from '../budget-fields.ts';
import { requireOwnBudget } from '../budget.ts';
import { endpoint } from '../endpoint.ts';
import { requireUnlimitedKey } from '../key-changes.ts';
import { renderBudget } from '../render/budgets.ts';

export const updateBudget = endpoint({
  method: 'post',
  path: '/v1/budgets/{budget_id}',
  tag: 'Budgets',
  summary: 'Change the limits, thresholds or degradation of a budget',
  description: 'Absent fields stay, null removes. A changed limit holds from the next call on.',
  params: budgetPath,
  body: budgetUpdate,
  response: budgetPool,
  async handle({ db, principal }, { params, body }) {
    requireUnlimitedKey(principal);
    const before = await getBudget(db, principal.teamId, params.budget_id, { lock: true });
    requireOwnBudget(before, principal.teamId);
    const fields = changedBudgetFields(before, body);
    const row = await saveBudget(db, before, fields);
    await insertAudit(db, {
      teamId: principal.teamId,
      actor: actorOf(principal),
      action: 'budget.update',
      resource: row.id,
      details: { ...fields },
    });
    return renderBudget(row);
  },
});
