import { skillListQuery, skillPage } from '../../contracts/skills.ts';
import { listSkills as readSkills } from '../../db/queries/skills.ts';
import { endpoint } from '../endpoint.ts';
import { pageRequest, renderPage } from '../paging.ts';
import { renderSkill } from '../render/skills.ts';

export const listSkills = endpoint({
  method: 'get',
  path: '/v1/skills',
  tag: 'Skills',
  summary: 'List skills, newest first',
  query: skillListQuery,
  response: skillPage,
  async handle({ db, principal }, { query }) {
    if (query.source === 'anthropic') return { data: [], next_page: null };
    return renderPage(await readSkills(db, principal.teamId, pageRequest(query)), renderSkill);
  },
});
