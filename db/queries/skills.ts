import { LonghaulError } from '../../contracts/error-codes.ts';
import { newId } from '../../contracts/ids.ts';
import { LIMITS } from '../../contracts/limits.ts';
import type { Page, PageRequest } from '../paging.ts';
import { Filter, selectPage } from '../paging.ts';
import type { Queryable } from '../pool.ts';
import { requireRow } from '../pool.ts';
import { toCamel } from '../rows.ts';

export interface SkillRow {
  id: string;
  teamId: string;
  name: string;
  displayName: string;
  latestVersionId: string;
  createdAt: Date;
  updatedAt: Date;
}

export interface SkillVersionRow {
  id: string;
  skillId: string;
  name: string;
  description: string;
  createdAt: Date;
}

export interface SkillFile {
  /** Below the folder of the skill. */
  path: string;
  content: Uint8Array;
}

/** A skill as it was uploaded: checked, and whole. */
export interface SkillContent {
  name: string;
  description: string;
  files: SkillFile[];
}

const SKILL = `SELECT * FROM (
  SELECT s.id, s.team_id, s.name, s.display_name, s.created_at, s.updated_at, s.deleted_at,
    (SELECT v.id FROM skill_versions v WHERE v.skill_id = s.id AND v.deleted_at IS NULL
     ORDER BY v.created_at DESC, v.id DESC LIMIT 1) AS latest_version_id FROM skills s) AS shown`;
const VERSION = `SELECT * FROM (
  SELECT v.id, v.skill_id, s.name, v.description, v.created_at, v.deleted_at
  FROM skill_versions v JOIN skills s ON s.id = v.skill_id WHERE s.deleted_at IS NULL) AS shown`;

/** Makes a skill with its first version. Throws `limit_reached`. */
export async function insertSkill(
  tx: Queryable,
  owner: { teamId: string; createdBy: string },
  content: SkillContent & { displayName: string },
): Promise<SkillRow> {
  const { teamId, createdBy } = owner;
  await tx.query(`SELECT pg_advisory_xact_lock(hashtextextended('skills ' || $1, 0))`, [teamId]);
  const count = await tx.query<{ n: number }>(
    'SELECT count(*)::int AS n FROM skills WHERE team_id = $1 AND deleted_at IS NULL',
    [teamId],
  );
  if ((count.rows[0]?.n ?? 0) >= LIMITS.skillsPerTeam) {
    throw new LonghaulError('limit_reached', `a team may have ${LIMITS.skillsPerTeam} skills`);
  }
  const id = newId('skill');
  await tx.query('INSERT INTO skills (id, team_id, name, display_name, created_by) VALUES ($1, $2, $3, $4, $5)', [
    id,
    teamId,
    content.name,
    content.displayName,
    createdBy,
  ]);
  await insertVersion(tx, id, createdBy, content);
  return getSkill(tx, teamId, id);
}

/** Adds a version. Throws `not_found`, `limit_reached`, and `invalid_request` for a SKILL.md of another name. */
export async function insertSkillVersion(
  tx: Queryable,
  at: { teamId: string; skillId: string; createdBy: string },
  content: SkillContent,
): Promise<SkillVersionRow> {
  const locked = await tx.query<{ name: string }>(
    'SELECT name FROM skills WHERE id = $1 AND team_id = $2 AND deleted_at IS NULL FOR UPDATE',
    [at.skillId, at.teamId],
  );
  const { name } = requireRow(locked.rows[0], `skill ${at.skillId}`);
  if (name !== content.name) {
    throw new LonghaulError('invalid_request', `the name in SKILL.md must stay ${name}`, { field: 'files' });
  }
  const count = await tx.query<{ n: number }>(
    'SELECT count(*)::int AS n FROM skill_versions WHERE skill_id = $1 AND deleted_at IS NULL',
    [at.skillId],
  );
  if ((count.rows[0]?.n ?? 0) >= LIMITS.versionsPerSkill) {
    throw new LonghaulError('limit_reached', `a skill may have ${LIMITS.versionsPerSkill} versions`);
  }
  const id = await insertVersion(tx, at.skillId, at.createdBy, content);
  await tx.query('UPDATE skills SET updated_at = now() WHERE id = $1', [at.skillId]);
  return getSkillVersion(tx, at.teamId, at.skillId, id);
}

async function insertVersion(
  tx: Queryable,
  skillId: string,
  createdBy: string,
  { description, files }: SkillContent,
): Promise<string> {
  const id = newId('skillVersion');
  const sizeBytes = files.reduce((sum, { content }) => sum + content.length, 0);
  await tx.query(
    'INSERT INTO skill_versions (id, skill_id, description, size_bytes, created_by) VALUES ($1, $2, $3, $4, $5)',
    [id, skillId, description, sizeBytes, createdBy],
  );
  for (const { path, content } of files) {
    await tx.query('INSERT INTO skill_files (version_id, path, content) VALUES ($1, $2, $3)', [id, path, content]);
  }
  return id;
}

/** Throws `not_found`. */
export async function getSkill(db: Queryable, teamId: string, id: string): Promise<SkillRow> {
  const result = await db.query(`${SKILL} WHERE id = $1 AND team_id = $2 AND deleted_at IS NULL`, [id, teamId]);
  return toCamel<SkillRow>(requireRow(result.rows[0] as object | undefined, `skill ${id}`));
}

export async function listSkills(db: Queryable, teamId: string, page: PageRequest): Promise<Page<SkillRow>> {
  return selectPage<SkillRow>(db, SKILL, new Filter().add('team_id = ?', teamId).addFixed('deleted_at IS NULL'), page);
}

/** Throws `not_found`. `latest` is the newest one. */
export async function getSkillVersion(
  db: Queryable,
  teamId: string,
  skillId: string,
  version: string,
): Promise<SkillVersionRow> {
  const { latestVersionId } = await getSkill(db, teamId, skillId);
  const id = version === 'latest' ? latestVersionId : version;
  const result = await db.query(`${VERSION} WHERE id = $1 AND skill_id = $2 AND deleted_at IS NULL`, [id, skillId]);
  return toCamel<SkillVersionRow>(
    requireRow(result.rows[0] as object | undefined, `version ${version} of skill ${skillId}`),
  );
}

export async function listSkillVersions(
  db: Queryable,
  skillId: string,
  page: PageRequest,
): Promise<Page<SkillVersionRow>> {
  const filter = new Filter().add('skill_id = ?', skillId).addFixed('deleted_at IS NULL');
  return selectPage<SkillVersionRow>(db, VERSION, filter, page);
}

/** Throws `not_found`. */
export async function deleteSkill(tx: Queryable, teamId: string, id: string): Promise<void> {
  const deleted = await tx.query(
    'UPDATE skills SET deleted_at = now() WHERE id = $1 AND team_id = $2 AND deleted_at IS NULL RETURNING id',
    [id, teamId],
  );
  requireRow(deleted.rows[0] as object | undefined, `skill ${id}`);
}

/** Throws `not_found`, and `in_use` for the only version that is left. */
export async function deleteSkillVersion(tx: Queryable, teamId: string, skillId: string, id: string): Promise<void> {
  await tx.query('SELECT id FROM skills WHERE id = $1 FOR UPDATE', [skillId]);
  await getSkillVersion(tx, teamId, skillId, id);
  const deleted = await tx.query(
    `UPDATE skill_versions SET deleted_at = now() WHERE id = $1 AND deleted_at IS NULL
       AND (SELECT count(*) FROM skill_versions WHERE skill_id = $2 AND deleted_at IS NULL) > 1 RETURNING id`,
    [id, skillId],
  );
  if (deleted.rows.length === 0) {
    throw new LonghaulError('in_use', 'a skill has at least one version; delete the skill instead');
  }
}

/** Files of a version in the order of their paths; also of one that was deleted since. */
export async function listSkillFiles(db: Queryable, versionId: string): Promise<SkillFile[]> {
  const result = await db.query<SkillFile>(
    'SELECT path, content FROM skill_files WHERE version_id = $1 ORDER BY path',
    [versionId],
  );
  return result.rows;
}

/** What models are told of the versions, in their order; also of those that were deleted since. */
export async function listSkillSummaries(
  db: Queryable,
  versionIds: string[],
): Promise<{ versionId: string; name: string; description: string }[]> {
  const result = await db.query(
    `SELECT v.id AS version_id, s.name, v.description FROM skill_versions v JOIN skills s ON s.id = v.skill_id
     WHERE v.id = ANY($1) ORDER BY array_position($1, v.id)`,
    [versionIds],
  );
  return result.rows.map((row: object) => toCamel<{ versionId: string; name: string; description: string }>(row));
}
