import { skillVersion, skillVersionPath } from '../../contracts/skills.ts';
import { getSkillVersion as read } from '../../db/queries/skills.ts';
import { endpoint } from '../endpoint.ts';
import { renderSkillVersion } from '../render/skills.ts';

export const getSkillVersion = endpoint({
  method: 'get',
  path: '/v1/skills/{skill_id}/versions/{version}',
  tag: 'Skills',
  summary: 'Get a version of a skill',
  params: skillVersionPath,
  response: skillVersion,
  async handle({ db, principal }, { params }) {
    return renderSkillVersion(await read(db, principal.teamId, params.skill_id, params.version));
  },
});
