import type { SkillResource, SkillVersionResource } from '../../contracts/skills.ts';
import type { SkillRow, SkillVersionRow } from '../../db/queries/skills.ts';

export function renderSkill(row: SkillRow): SkillResource {
  return {
    id: row.id,
    type: 'skill',
    display_name: row.displayName,
    latest_version_id: row.latestVersionId,
    source: { type: 'custom' },
    created_at: row.createdAt.toISOString(),
    updated_at: row.updatedAt.toISOString(),
  };
}

export function renderSkillVersion(row: SkillVersionRow): SkillVersionResource {
  return {
    id: row.id,
    type: 'skill_version',
    skill_id: row.skillId,
    name: row.name,
    description: row.description,
    created_at: row.createdAt.toISOString(),
  };
}
