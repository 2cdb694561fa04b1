import { sessionPath } from '../../contracts/events.ts';
import { usageByModel } from '../../contracts/sessions.ts';
import { getSession } from '../../db/queries/sessions.ts';
import { NO_USAGE, usageByModel as readUsage, usageOfSessions } from '../../db/queries/usage.ts';
import { endpoint } from '../endpoint.ts';
import { activeSeconds, renderSum, renderUsage } from '../render/sessions.ts';

export const getSessionUsage = endpoint({
  method: 'get',
  path: '/v1/sessions/{session_id}/usage',
  tag: 'Sessions',
  summary: 'What a session spent, in all and by model',
  params: sessionPath,
  response: usageByModel,
  async handle({ db, principal }, { params }) {
    const row = await getSession(db, principal.teamId, params.session_id);
    const total = (await usageOfSessions(db, [row.id])).get(row.id) ?? NO_USAGE;
    const models = await readUsage(db, row.id);
    return {
      session_id: row.id,
      total: renderUsage(total, activeSeconds(row)),
      models: models.map((sum) => ({ model: sum.model, provider: sum.provider, calls: sum.calls, ...renderSum(sum) })),
    };
  },
});
