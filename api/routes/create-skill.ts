import { z } from 'zod';
import { skill, skillFields } from '../../contracts/skills.ts';
import { insertSkill } from '../../db/queries/skills.ts';
import { rawEndpoint } from '../endpoint.ts';
import { renderSkill } from '../render/skills.ts';
import { storeUpload } from '../skills/upload.ts';

export const createSkill = rawEndpoint({
  method: 'post',
  path: '/v1/skills',
  tag: 'Skills',
  summary: 'Create a skill (its first version)',
  description:
    'A `multipart/form-data` body with parts `files[]`, each named by its path: all in one folder, with a `SKILL.md` in it whose front matter has `name` and `description`.',
  form: skillFields.extend({ 'files[]': z.array(z.string().meta({ format: 'binary' })) }),
  contentType: 'application/json',
  json: skill,
  handle: (input) =>
    storeUpload(input, async (tx, owner, content) => renderSkill(await insertSkill(tx, owner, content))),
});
