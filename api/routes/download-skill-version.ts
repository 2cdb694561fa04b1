import { skillVersionPath } from '../../contracts/skills.ts';
import { requireRow } from '../../db/pool.ts';
import { getSkillVersion, listSkillFiles } from '../../db/queries/skills.ts';
import { rawEndpoint } from '../endpoint.ts';
import { zipOf } from '../skills/zip.ts';

export const downloadSkillVersion = rawEndpoint({
  path: '/v1/skills/{skill_id}/versions/{version}/content',
  tag: 'Skills',
  summary: 'Download a version of a skill as a zip archive',
  params: skillVersionPath,
  contentType: 'application/zip',
  async handle({ res, services, principal, params }) {
    const { teamId } = requireRow(principal, 'the caller');
    const { id, name } = await getSkillVersion(services.pool, teamId, params.skill_id, params.version);
    const files = await listSkillFiles(services.pool, id);
    res.setHeader('content-type', 'application/zip');
    res.setHeader('content-disposition', `attachment; filename="${name}.zip"`);
    res.end(zipOf(files.map(({ path, content }) => ({ path: `${name}/${path}`, content }))));
  },
});
