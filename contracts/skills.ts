import { z } from 'zod';
import { time } from './fields.ts';
import { LIMITS } from './limits.ts';
import { pageOf, pageParams } from './paging.ts';

export const skillPath = z.object({ skill_id: z.string() });
export const skillVersionPath = z.object({ skill_id: z.string(), version: z.string() });

export const skill = z
  .object({
    id: z.string(),
    type: z.literal('skill'),
    display_name: z.string(),
    latest_version_id: z.string(),
    source: z.object({ type: z.literal('custom') }),
    created_at: time,
    updated_at: time,
  })
  .meta({ id: 'Skill' });
export type SkillResource = z.infer<typeof skill>;

export const skillVersion = z
  .object({
    id: z.string(),
    type: z.literal('skill_version'),
    skill_id: z.string(),
    name: z.string(),
    description: z.string(),
    created_at: time,
  })
  .meta({ id: 'SkillVersion' });
export type SkillVersionResource = z.infer<typeof skillVersion>;

/** The fields beside the files in an upload form. */
export const skillFields = z.strictObject({
  display_name: z.string().trim().min(1).max(LIMITS.vaultNameChars).optional(),
});
/** What stands at the beginning of a SKILL.md; harnesses may read more of it. */
export const skillFrontMatter = z.looseObject({
  name: z
    .string()
    .max(64)
    .regex(/^[a-z0-9]+(?:-[a-z0-9]+)*$/, 'must be small letters and digits with single hyphens between them'),
  description: z.string().trim().min(1).max(LIMITS.skillDescriptionChars),
});

export const skillListQuery = z.strictObject({ ...pageParams, source: z.enum(['custom', 'anthropic']).optional() });
export const skillVersionListQuery = z.strictObject({ ...pageParams });
export const skillPage = pageOf(skill);
export const skillVersionPage = pageOf(skillVersion);
export const skillDeleted = z.object({ id: z.string(), type: z.literal('skill_deleted') });
export const skillVersionDeleted = z.object({ id: z.string(), type: z.literal('skill_version_deleted') });
