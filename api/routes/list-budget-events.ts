import { budgetEvent, budgetEventListQuery, budgetPath } from '../../contracts/budgets.ts';
import { pageOf } from '../../contracts/paging.ts';
import { listBudgetEvents as readEvents } from '../../db/queries/budget-events.ts';
import { getBudget } from '../../db/queries/budgets.ts';
import { endpoint } from '../endpoint.ts';
import { pageRequest } from '../paging.ts';
import { renderBudgetEvent } from '../render/budgets.ts';

export const listBudgetEvents = endpoint({
  method: 'get',
  path: '/v1/budgets/{budget_id}/events',
  tag: 'Budgets',
  summary: 'List the thresholds a budget has passed, newest first',
  params: budgetPath,
  query: budgetEventListQuery,
  response: pageOf(budgetEvent),
  async handle({ db, principal }, { params, query }) {
    const budget = await getBudget(db, principal.teamId, params.budget_id);
    const page = await readEvents(db, budget.id, pageRequest(query));
    return { data: page.data.map(renderBudgetEvent), next_page: page.nextPage };
  },
});
