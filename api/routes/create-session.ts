import { session, sessionCreate } from '../../contracts/sessions.ts';
import { createSession as insertSession } from '../../db/queries/sessions.ts';
import { resolveAgent } from '../agent-reference.ts';
import { requireBudgetable } from '../budget.ts';
import { requireRunnableEnvironment } from '../deployment-fields.ts';
import { endpoint } from '../endpoint.ts';
import { requireVaults } from '../vaults.ts';
import { requireUnlimitedCalls } from '../key-changes.ts';
import { traceFirstInputs } from '../trace-inputs.ts';
import { resolveResources } from '../session-resources.ts';
import { renderOneSession } from '../render/sessions.ts';

export const createSession = endpoint({
  method: 'post',
  path: '/v1/sessions',
  tag: 'Sessions',
  summary: 'Open a session; initial events start its first turn',
  body: sessionCreate,
  response: session,
  holdsSecrets: true,
  async handle(context, { body }) {
    const { db, principal, services, afterCommit } = context;
    requireUnlimitedCalls(principal);
    const agent = await resolveAgent(db, principal.teamId, body.agent);
    const environment = await requireRunnableEnvironment(db, principal.teamId, body.environment_id);
    await requireVaults(db, principal.teamId, body.vault_ids ?? []);
    const { budget } = body;
    await requireBudgetable(db, principal.teamId, { model: agent.definition.model.id, budget, field: 'budget' });
    for (const [index, event] of (body.initial_events ?? []).entries()) {
      if (event.model === undefined) continue;
      const field = `initial_events[${index}].model`;
      await requireBudgetable(db, principal.teamId, { model: event.model, budget, field });
    }
    const { vaultKeys } = services;
    const fixed = await resolveResources(db, { principal, vaultKeys }, environment.config, body.resources ?? []);
    const row = await insertSession(db, {
      teamId: principal.teamId,
      createdBy: principal.userId,
      agent,
      environment: { id: environment.id, config: fixed.environment },
      title: body.title ?? null,
      metadata: body.metadata ?? {},
      budget: body.budget ?? null,
      limits: body.limits ?? {},
      vaultIds: [...(body.vault_ids ?? []), ...fixed.vaultIds],
      resources: fixed.resources,
      deploymentId: null,
      labels: body.labels ?? [],
      repo: body.repo ?? null,
      trigger: 'api',
      initialEvents: body.initial_events ?? [],
    });
    afterCommit(() => services.delivery.deliver(row.id));
    traceFirstInputs(context, row.id);
    return renderOneSession(db, row);
  },
});
