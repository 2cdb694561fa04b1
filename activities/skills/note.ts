import type { AgentDefinition } from '../../contracts/definitions.ts';
import type { Queryable } from '../../db/pool.ts';
import { listSkillFiles, listSkillSummaries } from '../../db/queries/skills.ts';
import type { SkillFolder } from '../harness/port.ts';

const versionsOf = (agent: AgentDefinition): string[] => agent.skills.map(({ version }) => version);

/** For the system prompt: which skills there are. Fixed for an agent's version, so that the prompt's beginning stays. */
export async function skillsNote(db: Queryable, agent: AgentDefinition): Promise<string> {
  if (agent.skills.length === 0) return '';
  const skills = await listSkillSummaries(db, versionsOf(agent));
  return [
    'Skills you have; read one with read_skill before you do what it is for:',
    ...skills.map(({ name, description }) => `- ${name}: ${description.replaceAll(/\s+/g, ' ')}`),
  ].join('\n');
}

/** The folders of a session's skills, for a harness that reads them from a disk. */
export async function skillsOf(db: Queryable, session: { agent: AgentDefinition }): Promise<SkillFolder[]> {
  const skills = await listSkillSummaries(db, versionsOf(session.agent));
  return Promise.all(skills.map(async ({ versionId, name }) => ({ name, files: await listSkillFiles(db, versionId) })));
}
