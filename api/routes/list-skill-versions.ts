import { skillPath, skillVersionListQuery, skillVersionPage } from '../../contracts/skills.ts';
import { getSkill, listSkillVersions as readVersions } from '../../db/queries/skills.ts';
import { endpoint } from '../endpoint.ts';
import { pageRequest, renderPage } from '../paging.ts';
import { renderSkillVersion } from '../render/skills.ts';

export const listSkillVersions = endpoint({
  method: 'get',
  path: '/v1/skills/{skill_id}/versions',
  tag: 'Skills',
  summary: 'List versions of a skill, newest first',
  params: skillPath,
  query: skillVersionListQuery,
  response: skillVersionPage,
  async handle({ db, principal }, { params, query }) {
    const { id } = await getSkill(db, principal.teamId, params.skill_id);
    return renderPage(await readVersions(db, id, pageRequest(query)), renderSkillVersion);
  },
});
