import { budgetPath, budgetPool } from '../../contracts/budgets.ts';
import { getBudget as readBudget } from '../../db/queries/budgets.ts';
import { endpoint } from '../endpoint.ts';
import { renderBudget } from '../render/budgets.ts';

export const getBudget = endpoint({
  method: 'get',
  path: '/v1/budgets/{budget_id}',
  tag: 'Budgets',
  summary: 'Get a budget with what is spent, reserved and left',
  params: budgetPath,
  response: budgetPool,
  async handle({ db, principal }, { params }) {
    return renderBudget(await readBudget(db, principal.teamId, params.budget_id));
  },
});
