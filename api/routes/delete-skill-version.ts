import { skillVersionDeleted, skillVersionPath } from '../../contracts/skills.ts';
import { insertAudit } from '../../db/queries/audit.ts';
import { deleteSkillVersion as remove } from '../../db/queries/skills.ts';
import { actorOf } from '../actor.ts';
import { endpoint } from '../endpoint.ts';

export const deleteSkillVersion = endpoint({
  method: 'delete',
  path: '/v1/skills/{skill_id}/versions/{version}',
  tag: 'Skills',
  summary: 'Delete a version of a skill',
  description: 'Agents and sessions that have it keep it. The last one stays with its skill.',
  params: skillVersionPath,
  response: skillVersionDeleted,
  async handle({ db, principal }, { params }) {
    await remove(db, principal.teamId, params.skill_id, params.version);
    const [actor, resource] = [actorOf(principal), params.version];
    await insertAudit(db, { teamId: principal.teamId, actor, action: 'skill.delete', resource });
    return { id: params.version, type: 'skill_version_deleted' as const };
  },
});
