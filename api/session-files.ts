import type { CloudEnvironment } from '../contracts/definitions.ts';
import { LonghaulError } from '../contracts/error-codes.ts';
import { newId } from '../contracts/ids.ts';
import { LIMITS } from '../contracts/limits.ts';
import type {
  FileResourceParam,
  SessionResourceShown,
  StoredFileResource,
  StoredSessionResource,
} from '../contracts/session-resources.ts';
import type { Queryable } from '../db/pool.ts';
import { getFile } from '../db/queries/files.ts';

/** Where a file is to be mounted: beside what is there. */
interface Place {
  teamId: string;
  environment: CloudEnvironment;
  resources: readonly StoredSessionResource[];
}

/** A file as resource of a session, refused where it could not be mounted. `field` begins the names of refused fields. */
export async function resolveFile(
  db: Queryable,
  { teamId, environment, resources }: Place,
  param: FileResourceParam,
  { field, late }: { field: string; late: boolean },
): Promise<StoredFileResource> {
  const files = resources.filter(({ type }) => type === 'file');
  if (files.length >= LIMITS.sessionFiles) {
    throw refused(`${field}file_id`, `a session has at most ${LIMITS.sessionFiles} files`);
  }
  await requireFile(db, teamId, param.file_id, `${field}file_id`);
  const at = param.mount_path ?? `/mnt/session/uploads/${param.file_id}`;
  const others = files.map(({ mount_path: path }) => path);
  // A file may lie in a repository, but not in its place.
  const inTheWay =
    others.find((other) => contains(at, other) || contains(other, at)) ??
    environment.repositories.map(({ mount_path: path }) => path).find((path) => contains(at, path));
  if (inTheWay !== undefined) throw refused(`${field}mount_path`, `${at} and ${inTheWay} are in each other's way`);
  const now = new Date().toISOString();
  return {
    id: newId('sessionResource'),
    type: 'file',
    file_id: param.file_id,
    mount_path: at,
    created_at: now,
    updated_at: now,
    late,
  };
}

/** Without what only we need to know. */
export function renderFileResource({ late: _late, ...shown }: StoredFileResource): SessionResourceShown & {
  type: 'file';
} {
  return shown;
}

function contains(folder: string, path: string): boolean {
  return `${path}/`.startsWith(`${folder}/`);
}

function refused(field: string, message: string): LonghaulError {
  return new LonghaulError('invalid_request', message, { field });
}

async function requireFile(db: Queryable, teamId: string, id: string, field: string): Promise<void> {
  try {
    await getFile(db, teamId, id);
  } catch (error) {
    if (!(error instanceof LonghaulError) || error.code !== 'not_found') throw error;
    throw refused(field, `there is no file ${id}`);
  }
}
