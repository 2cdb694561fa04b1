import { existsSync } from 'node:fs';
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import { LIMITS } from '../../../contracts/limits.ts';
import type { HarnessSpec, SkillFolder } from '../port.ts';

/** How a model is asked: the gateway translates nothing, so it depends on who makes the model. */
export type Wire = 'chat' | 'messages';

export const AGENT = 'longhaul';
const PROVIDERS = { chat: 'longhaul', messages: 'longhaul-messages' } as const;
const SDKS = { chat: '@ai-sdk/openai-compatible', messages: '@ai-sdk/anthropic' } as const;

/** OpenCode compacts a conversation before it is longer; the gateway does not tell how much a model takes. */
const CONTEXT_TOKENS = 200_000;
const OUTPUT_TOKENS = 16_384;
const DEFAULT_PROMPT = 'You are an agent. Work with the tools you are given, and say briefly what you did.';

/** The model as OpenCode names it. */
export function modelRef(model: string, wire: Wire): { providerID: string; modelID: string } {
  return { providerID: PROVIDERS[wire], modelID: model };
}

/** The prefix OpenCode gives the tools of an MCP server. */
export function toolPrefix(server: string): string {
  return `${server.replaceAll(/[^a-zA-Z0-9_-]/g, '_')}_`;
}

/** `opencode.json` of one session: its directory is its own, so nobody else's instance reads it. */
export function settingsOf(spec: HarnessSpec, models: readonly string[]): string {
  const known = Object.fromEntries(
    models.map((model) => [model, { limit: { context: CONTEXT_TOKENS, output: OUTPUT_TOKENS }, tool_call: true }]),
  );
  const options = { baseURL: `${spec.model.baseUrl}/v1`, apiKey: spec.model.key };
  const provider = (wire: Wire): object => ({ npm: SDKS[wire], name: PROVIDERS[wire], options, models: known });
  const permission = {
    '*': 'deny',
    ...Object.fromEntries(spec.mcpServers.map(({ name }) => [`${toolPrefix(name)}*`, 'allow'])),
    todowrite: 'allow',
    // Asks when a model repeats a call; ours are judged one by one.
    doom_loop: 'allow',
    ...(spec.skills.length === 0 ? {} : { skill: 'allow' }),
  };
  const off = { disable: true };
  const settings = {
    enabled_providers: Object.values(PROVIDERS),
    provider: { [PROVIDERS.chat]: provider('chat'), [PROVIDERS.messages]: provider('messages') },
    default_agent: AGENT,
    agent: {
      [AGENT]: { mode: 'primary', prompt: spec.systemPrompt ?? DEFAULT_PROMPT, permission },
      build: off,
      plan: off,
      general: off,
      explore: off,
      title: off,
      summary: off,
    },
    permission,
    mcp: Object.fromEntries(
      spec.mcpServers.map(({ name, url, headers }) => [
        name,
        // A call may wait for somebody's approval.
        { type: 'remote', url, headers, oauth: false, enabled: true, timeout: LIMITS.turnWallClockMs },
      ]),
    ),
    skills: { paths: spec.skills.length === 0 ? [] : [skillsFolder(spec)] },
  };
  // OpenCode replaces `{env:NAME}` and `{file:PATH}` in the text of its settings: prompts must not read our secrets.
  return JSON.stringify(settings).replaceAll(/\{(?=env:|file:)/g, '\\u007b');
}

function skillsFolder(spec: HarnessSpec): string {
  return path.join(spec.stateDir, 'skills');
}

const settingsFile = (spec: HarnessSpec): string => path.join(spec.cwd, 'opencode.json');
/** What the server has read: written after it was told to forget what it had read before. */
const appliedFile = (spec: HarnessSpec): string => path.join(spec.stateDir, 'opencode-applied.json');

/**
 * Writes the session's files. True: the server may have read other ones and must forget them; then call `markApplied`
 * when it has.
 */
export async function writeSettings(spec: HarnessSpec, settings: string): Promise<boolean> {
  if ((await readFile(appliedFile(spec), 'utf8').catch(() => '')) === settings) return false;
  const isNew = !existsSync(settingsFile(spec));
  for (const folder of [spec.cwd, spec.stateDir]) await mkdir(folder, { recursive: true, mode: 0o700 });
  await closeUpwards(spec.cwd);
  await writeSkills(spec);
  await writePrivate(settingsFile(spec), settings);
  if (isNew) await markApplied(spec, settings);
  return !isNew;
}

export async function markApplied(spec: HarnessSpec, settings: string): Promise<void> {
  await writePrivate(appliedFile(spec), settings);
}

/** Models that the session's settings name already. */
export async function knownModels(spec: HarnessSpec): Promise<string[]> {
  try {
    const { provider } = JSON.parse(await readFile(settingsFile(spec), 'utf8')) as {
      provider: Record<string, { models: Record<string, unknown> }>;
    };
    return Object.keys(provider[PROVIDERS.chat]?.models ?? {});
  } catch {
    return [];
  }
}

export async function removeSettings(spec: HarnessSpec): Promise<void> {
  const files = [settingsFile(spec), appliedFile(spec), path.join(spec.cwd, '.git'), skillsFolder(spec)];
  for (const file of files) await rm(file, { recursive: true, force: true });
}

/**
 * OpenCode looks for settings and AGENTS.md in all folders up to the root of a repository. An empty repository makes the
 * session's own folder that root.
 */
async function closeUpwards(folder: string): Promise<void> {
  const git = path.join(folder, '.git');
  for (const part of ['objects', 'refs/heads']) await mkdir(path.join(git, part), { recursive: true });
  await writeFile(path.join(git, 'config'), '[core]\n\trepositoryformatversion = 0\n\tbare = false\n');
  await writeFile(path.join(git, 'HEAD'), 'ref: refs/heads/main\n');
}

async function writeSkills(spec: HarnessSpec): Promise<void> {
  await rm(skillsFolder(spec), { recursive: true, force: true });
  for (const skill of spec.skills) {
    for (const file of skill.files) {
      const target = pathInside(skillsFolder(spec), skill, file.path);
      await mkdir(path.dirname(target), { recursive: true, mode: 0o700 });
      await writeFile(target, file.content, { mode: 0o600 });
    }
  }
}

function pathInside(folder: string, skill: SkillFolder, file: string): string {
  const target = path.resolve(folder, skill.name, file);
  const inside = path.relative(path.join(folder, skill.name), target);
  if (path.basename(skill.name) === skill.name && inside !== '' && !inside.startsWith('..')) return target;
  throw new LonghaulError('harness_invalid', `${skill.name}/${file} leaves the skill's folder`, { field: 'skills' });
}

/** Holds the session's key: nobody else may read it, not for a moment. */
async function writePrivate(file: string, content: string): Promise<void> {
  const aside = `${file}.${process.pid}.new`;
  await writeFile(aside, content, { mode: 0o600 });
  await rename(aside, file);
}
