import type { DeploymentUpdate } from '../../contracts/deployments.ts';
import { deployment, deploymentPath, deploymentUpdate } from '../../contracts/deployments.ts';
import type { Queryable } from '../../db/pool.ts';
import type { DeploymentRow } from '../../db/queries/deployments.ts';
import { updateDeployment as saveDeployment } from '../../db/queries/deployments.ts';
import { patchMetadata, patchText } from '../definitions.ts';
import { requireBudgetable } from '../budget.ts';
import { requireRunnableEnvironment, resolveDeployedAgent } from '../deployment-fields.ts';
import { endpoint } from '../endpoint.ts';
import { requireUnlimitedCalls } from '../key-changes.ts';
import { requireLiveDeployment } from '../live-deployment.ts';
import { renderOneDeployment } from '../render/deployments.ts';
import { requireCron } from '../schedules.ts';
import { requireVaults } from '../vaults.ts';

export const updateDeployment = endpoint({
  method: 'post',
  path: '/v1/deployments/{deployment_id}',
  tag: 'Deployments',
  summary: 'Change a deployment; sessions it made keep what they have',
  params: deploymentPath,
  body: deploymentUpdate,
  response: deployment,
  async handle({ db, principal, services, afterCommit }, { params, body }) {
    requireUnlimitedCalls(principal);
    const before = await requireLiveDeployment(db, principal.teamId, params.deployment_id);
    if (body.schedule !== undefined && body.schedule !== null) requireCron(body.schedule);
    const agent = await editedAgent(db, before, body);
    if (body.environment_id !== undefined) await requireRunnableEnvironment(db, principal.teamId, body.environment_id);
    await requireVaults(db, principal.teamId, body.vault_ids ?? []);
    const row = await saveDeployment(db, before.id, {
      name: body.name ?? before.name,
      description: patchText(before.description, body.description),
      agentId: agent.agentId,
      agentVersion: agent.agentVersion,
      environmentId: body.environment_id ?? before.environmentId,
      initialEvents: body.initial_events ?? before.initialEvents,
      schedule: body.schedule === undefined ? before.schedule : body.schedule,
      budget: body.budget === undefined ? before.budget : body.budget,
      limits: body.limits ?? before.limits,
      vaultIds: body.vault_ids === undefined ? before.vaultIds : (body.vault_ids ?? []),
      labels: body.labels === undefined ? before.labels : (body.labels ?? []),
      repo: body.repo === undefined ? before.repo : body.repo,
      metadata: patchMetadata(before.metadata, body.metadata),
    });
    afterCommit(() => services.schedules.sync(row.id));
    return renderOneDeployment(db, row);
  },
});

/** The agent is looked at again only when it or what it may spend changes. */
async function editedAgent(
  tx: Queryable,
  before: DeploymentRow,
  edit: DeploymentUpdate,
): Promise<{ agentId: string; agentVersion: number | null }> {
  const budget = edit.budget === undefined ? before.budget : edit.budget;
  if (edit.agent === undefined && edit.budget === undefined) return before;
  const same = { type: 'agent' as const, id: before.agentId, version: before.agentVersion ?? undefined };
  const agent = await resolveDeployedAgent(tx, before.teamId, edit.agent ?? same);
  await requireBudgetable(tx, before.teamId, { model: agent.model, budget, field: 'budget' });
  return agent;
}
