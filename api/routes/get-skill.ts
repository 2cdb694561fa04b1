import { skill, skillPath } from '../../contracts/skills.ts';
import { getSkill as read } from '../../db/queries/skills.ts';
import { endpoint } from '../endpoint.ts';
import { renderSkill } from '../render/skills.ts';

export const getSkill = endpoint({
  method: 'get',
  path: '/v1/skills/{skill_id}',
  tag: 'Skills',
  summary: 'Get a skill',
  params: skillPath,
  response: skill,
  async handle({ db, principal }, { params }) {
    return renderSkill(await read(db, principal.teamId, params.skill_id));
  },
});
