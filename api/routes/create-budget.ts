import { budgetCreate, budgetPool } from '../../contracts/budgets.ts';
import { insertAudit } from '../../db/queries/audit.ts';
import { insertBudget } from '../../db/queries/budgets.ts';
import { actorOf } from '../actor.ts';
import { newBudgetFields, scopeIdOf } from '../budget-fields.ts';
import { endpoint } from '../endpoint.ts';
import { requireUnlimitedKey } from '../key-changes.ts';
import { renderBudget } from '../render/budgets.ts';

export const createBudget = endpoint({
  method: 'post',
  path: '/v1/budgets',
  tag: 'Budgets',
  summary: 'Make a pool of money that calls of its scope are paid from',
  description:
    'A call is paid by every pool it belongs to. A hard limit refuses or stops calls; a soft one only raises events.',
  body: budgetCreate,
  response: budgetPool,
  async handle({ db, principal }, { body }) {
    requireUnlimitedKey(principal);
    const fields = newBudgetFields(body);
    const row = await insertBudget(db, {
      ...fields,
      teamId: principal.teamId,
      scopeKind: body.scope.type,
      scopeId: scopeIdOf(body.scope, principal.teamId),
      period: body.period,
      createdBy: principal.userId,
    });
    await insertAudit(db, {
      teamId: row.teamId,
      actor: actorOf(principal),
      action: 'budget.create',
      resource: row.id,
      details: { ...fields, scope: row.scopeKind, scopeId: row.scopeId, period: row.period },
    });
    return renderBudget(row);
  },
});
