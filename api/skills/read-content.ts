import { parse } from 'yaml';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { skillFrontMatter } from '../../contracts/skills.ts';
import type { SkillContent, SkillFile } from '../../db/queries/skills.ts';

const SKILL_MD = 'SKILL.md';
const DEPTH = 8;

/** A file as it came: its path begins with the folder of the skill. */
export interface UploadedFile {
  path: string;
  content: Uint8Array;
}

/** The skill that the files make, or `invalid_request` with the reason: whoever gets it may write its paths to a disk. */
export function skillOf(uploaded: readonly UploadedFile[]): SkillContent {
  if (uploaded.length === 0) throw refusal('are missing');
  const split = uploaded.map(({ path, content }) => ({ segments: segmentsOf(path), content }));
  const [folder] = split[0]?.segments ?? [];
  if (split.some(({ segments }) => segments.length < 2 || segments[0] !== folder)) {
    throw refusal('must all lie in one folder');
  }
  const files: SkillFile[] = split.map(({ segments, content }) => ({ path: segments.slice(1).join('/'), content }));
  requireDistinct(files.map(({ path }) => path));
  const main = files.find(({ path }) => path === SKILL_MD);
  if (main === undefined) throw refusal(`must include ${folder ?? ''}/${SKILL_MD}`);
  return { ...frontMatterOf(main.content), files };
}

/** Nothing that leads out of the folder, means something else on another system, or cannot be a file name. */
function segmentsOf(path: string): string[] {
  const segments = path.split('/');
  const isPlain = segments.every(
    (segment) =>
      segment !== '' &&
      segment !== '.' &&
      segment !== '..' &&
      // What a disk counts.
      Buffer.byteLength(segment) <= LIMITS.filenameChars &&
      segment === segment.trim() &&
      !/[\\:*?"<>|]|[\p{Control}\p{Format}\p{Surrogate}\u2028\u2029]/u.test(segment),
  );
  if (!isPlain || segments.length > DEPTH + 1 || path.length > LIMITS.mountPathChars) {
    throw refusal(`has a path that cannot be used: ${JSON.stringify(path.slice(0, 100))}`);
  }
  return segments;
}

/** Also where capital letters make no difference, and no file may be the folder of another. */
function requireDistinct(paths: readonly string[]): void {
  const plain = paths.map((path) => path.normalize('NFC').toLowerCase());
  const taken = new Set<string>();
  for (const path of plain) {
    if (taken.has(path)) throw refusal(`has ${JSON.stringify(path.slice(0, 100))} twice`);
    taken.add(path);
  }
  for (const path of plain) {
    const parents = path.split('/').slice(0, -1);
    if (parents.some((_name, index) => taken.has(parents.slice(0, index + 1).join('/')))) {
      throw refusal(`has a file where ${JSON.stringify(path.slice(0, 100))} needs a folder`);
    }
  }
}

function frontMatterOf(content: Uint8Array): { name: string; description: string } {
  const text = textOf(content);
  const [, block] = /^---[ \t]*\r?\n([\s\S]*?)\r?\n---[ \t]*(?:\r?\n|$)/.exec(text) ?? [];
  if (block === undefined) throw refusal(`${SKILL_MD} must begin with front matter between two lines of ---`);
  if (block.length > LIMITS.skillFrontMatterChars) throw refusal(`the front matter of ${SKILL_MD} is too long`);
  let value: unknown;
  try {
    value = parse(block, { maxAliasCount: 0, schema: 'core' });
  } catch {
    throw refusal(`the front matter of ${SKILL_MD} is not YAML`);
  }
  const parsed = skillFrontMatter.safeParse(value);
  if (parsed.success) return { name: parsed.data.name, description: parsed.data.description };
  const [issue] = parsed.error.issues;
  throw refusal(`${issue?.path.join('.') || 'the front matter'} in ${SKILL_MD}: ${issue?.message ?? 'is not valid'}`);
}

function textOf(content: Uint8Array): string {
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(content);
    if (!text.includes('\0')) return text;
  } catch {
    // Told below.
  }
  throw refusal(`${SKILL_MD} must be UTF-8 text`);
}

function refusal(message: string): LonghaulError {
  return new LonghaulError('invalid_request', message, { field: 'files' });
}
