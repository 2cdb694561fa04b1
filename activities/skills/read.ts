import { LIMITS } from '../../contracts/limits.ts';
import { PLATFORM_INPUTS } from '../../contracts/tool-inputs.ts';
import type { EffectRow } from '../../db/queries/effects.ts';
import { loadSessionForTurn } from '../../db/queries/session-status.ts';
import { listSkillFiles, listSkillSummaries } from '../../db/queries/skills.ts';
import type { ActivityDeps } from '../deps.ts';
import type { ToolOutcome } from '../effects/outcome.ts';
import { done } from '../effects/outcome.ts';
import { excerpt } from '../effects/shorten.ts';

const SKILL_MD = 'SKILL.md';
/** Instructions are for reading whole. */
const SHOWN = { headBytes: LIMITS.messageShownBytes, tailBytes: 0 };

/** The tool `read_skill`: what the session's agent has, and nothing else. */
export async function readSkill({ pool }: ActivityDeps, effect: EffectRow): Promise<ToolOutcome> {
  const { name, path = SKILL_MD } = PLATFORM_INPUTS.read_skill.parse(effect.input);
  const { agent } = await loadSessionForTurn(pool, effect.sessionId);
  const skills = await listSkillSummaries(
    pool,
    agent.skills.map(({ version }) => version),
  );
  const skill = skills.find((known) => known.name === name);
  if (skill === undefined) {
    return done(`There is no skill ${name}; there are: ${skills.map((known) => known.name).join(', ')}`, true);
  }
  const files = await listSkillFiles(pool, skill.versionId);
  const file = files.find((known) => known.path === path);
  if (file === undefined) return done(`${name} has no file ${path}; it has: ${pathsOf(files)}`, true);
  const bytes = Buffer.from(file.content);
  if (bytes.includes(0)) return done(`${path} is no text (${bytes.length} bytes)`, true);
  const text = bytes.length > LIMITS.messageShownBytes ? excerpt(bytes, SHOWN, undefined) : bytes.toString('utf8');
  const others = files.filter((known) => known.path !== SKILL_MD);
  return done(path === SKILL_MD && others.length > 0 ? `${text}\n\n[Other files: ${pathsOf(others)}]` : text);
}

function pathsOf(files: readonly { path: string }[]): string {
  return files.map((known) => known.path).join(', ');
}
