import { z } from 'zod';
import { skillPath, skillVersion } from '../../contracts/skills.ts';
import { insertSkillVersion } from '../../db/queries/skills.ts';
import { rawEndpoint } from '../endpoint.ts';
import { renderSkillVersion } from '../render/skills.ts';
import { storeUpload } from '../skills/upload.ts';

export const createSkillVersion = rawEndpoint({
  method: 'post',
  path: '/v1/skills/{skill_id}/versions',
  tag: 'Skills',
  summary: 'Add a version to a skill',
  description: 'As for the skill itself; the `name` in `SKILL.md` stays what it was.',
  params: skillPath,
  form: z.object({ 'files[]': z.array(z.string().meta({ format: 'binary' })) }),
  contentType: 'application/json',
  json: skillVersion,
  handle: (input) =>
    storeUpload(input, async (tx, owner, content) =>
      renderSkillVersion(await insertSkillVersion(tx, { ...owner, skillId: input.params.skill_id }, content)),
    ),
});
