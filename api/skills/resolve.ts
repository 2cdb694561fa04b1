import type { SkillParam } from '../../contracts/agents.ts';
import type { AgentDefinition } from '../../contracts/definitions.ts';
import { LonghaulError } from '../../contracts/error-codes.ts';
import type { Queryable } from '../../db/pool.ts';
import { getSkillVersion } from '../../db/queries/skills.ts';

/** Skills as an agent keeps them: each with the version it has from now on. Throws `invalid_request` with the field. */
export async function resolveSkills(
  db: Queryable,
  teamId: string,
  params: readonly SkillParam[],
): Promise<AgentDefinition['skills']> {
  const names = new Set<string>();
  const skills: AgentDefinition['skills'] = [];
  for (const [index, { skill_id: skillId, version }] of params.entries()) {
    const found = await getSkillVersion(db, teamId, skillId, version ?? 'latest').catch((error: unknown) => {
      if (!(error instanceof LonghaulError) || error.code !== 'not_found') throw error;
      throw new LonghaulError('invalid_request', error.message, { field: `skills[${index}]` });
    });
    if (names.has(found.name)) {
      throw new LonghaulError('invalid_request', `there are two skills named ${found.name}`, {
        field: `skills[${index}]`,
      });
    }
    names.add(found.name);
    skills.push({ type: 'custom', skill_id: found.skillId, version: found.id });
  }
  return skills;
}
