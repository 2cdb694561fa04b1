import { skillDeleted, skillPath } from '../../contracts/skills.ts';
import { insertAudit } from '../../db/queries/audit.ts';
import { deleteSkill as remove } from '../../db/queries/skills.ts';
import { actorOf } from '../actor.ts';
import { endpoint } from '../endpoint.ts';

export const deleteSkill = endpoint({
  method: 'delete',
  path: '/v1/skills/{skill_id}',
  tag: 'Skills',
  summary: 'Delete a skill with its versions',
  description: 'Agents and sessions that have it keep it; no new agent version may name it.',
  params: skillPath,
  response: skillDeleted,
  async handle({ db, principal }, { params }) {
    await remove(db, principal.teamId, params.skill_id);
    const [actor, resource] = [actorOf(principal), params.skill_id];
    await insertAudit(db, { teamId: principal.teamId, actor, action: 'skill.delete', resource });
    return { id: params.skill_id, type: 'skill_deleted' as const };
  },
});
