import { deployment, deploymentCreate } from '../../contracts/deployments.ts';
import { insertDeployment } from '../../db/queries/deployments.ts';
import { requireBudgetable } from '../budget.ts';
import { requireRunnableEnvironment, resolveDeployedAgent } from '../deployment-fields.ts';
import { endpoint } from '../endpoint.ts';
import { requireUnlimitedCalls } from '../key-changes.ts';
import { renderOneDeployment } from '../render/deployments.ts';
import { requireCron } from '../schedules.ts';
import { requireVaults } from '../vaults.ts';

export const createDeployment = endpoint({
  method: 'post',
  path: '/v1/deployments',
  tag: 'Deployments',
  summary: 'Put an agent on a schedule, or make it runnable by hand',
  body: deploymentCreate,
  response: deployment,
  async handle({ db, principal, services, afterCommit }, { body }) {
    requireUnlimitedCalls(principal);
    if (body.schedule !== undefined && body.schedule !== null) requireCron(body.schedule);
    const agent = await resolveDeployedAgent(db, principal.teamId, body.agent);
    await requireBudgetable(db, principal.teamId, { model: agent.model, budget: body.budget, field: 'budget' });
    const environment = await requireRunnableEnvironment(db, principal.teamId, body.environment_id);
    await requireVaults(db, principal.teamId, body.vault_ids ?? []);
    const row = await insertDeployment(
      db,
      { teamId: principal.teamId, createdBy: principal.userId },
      {
        name: body.name,
        description: body.description ?? null,
        agentId: agent.agentId,
        agentVersion: agent.agentVersion,
        environmentId: environment.id,
        initialEvents: body.initial_events,
        schedule: body.schedule ?? null,
        budget: body.budget ?? null,
        limits: body.limits ?? {},
        vaultIds: body.vault_ids ?? [],
        labels: body.labels ?? [],
        repo: body.repo ?? null,
        metadata: body.metadata ?? {},
      },
    );
    afterCommit(() => services.schedules.sync(row.id));
    return renderOneDeployment(db, row);
  },
});
