import { budgetListQuery, budgetPool } from '../../contracts/budgets.ts';
import { pageOf } from '../../contracts/paging.ts';
import { listBudgets as readBudgets } from '../../db/queries/budgets.ts';
import { endpoint } from '../endpoint.ts';
import { pageRequest } from '../paging.ts';
import { renderBudget } from '../render/budgets.ts';

export const listBudgets = endpoint({
  method: 'get',
  path: '/v1/budgets',
  tag: 'Budgets',
  summary: 'List budgets with what they have spent, newest first',
  query: budgetListQuery,
  response: pageOf(budgetPool),
  async handle({ db, principal }, { query }) {
    const where = {
      teamId: principal.teamId,
      scopeKind: query.scope_type,
      scopeId: query.scope_id,
      includeArchived: query.include_archived ?? false,
    };
    const page = await readBudgets(db, where, pageRequest(query));
    return { data: page.data.map(renderBudget), next_page: page.nextPage };
  },
});
