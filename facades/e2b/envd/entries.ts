import { posix } from 'node:path';
import type { E2bDeps, LiveSandbox } from '../sandboxes.ts';
import { RpcError } from './connect.ts';
import { runInside } from './run.ts';

/** Fields of one entry, each ended by NUL; the name last. */
const FORMAT = String.raw`%y%Y\0%s\0%m\0%M\0%u\0%g\0%T@\0%l\0%p\0`;
const FIELDS = 9;

/** One entry as the wire shows it. */
export async function statEntry(deps: E2bDeps, live: LiveSandbox, path: string): Promise<object> {
  const result = await runInside(deps, live, ['find', path, '-maxdepth', '0', '-printf', FORMAT]);
  const entry = parseEntries(result.stdout)[0];
  if (entry === undefined) throw missing(path, result.stderr);
  return entry;
}

/** What is below a folder, down to `depth`; refused when that is too much to tell. */
export async function listEntries(
  deps: E2bDeps,
  live: LiveSandbox,
  path: string,
  depth: number,
  limit: number,
): Promise<object[]> {
  // A folder behind a link is listed under the link's name.
  const script =
    '[ -e "$1" ] || exit 44; [ -d "$1" ] || exit 45; exec find -H "$1" -mindepth 1 -maxdepth "$2" -printf "$3"';
  const result = await runInside(deps, live, ['sh', '-c', script, 'list', path, String(depth), FORMAT]);
  if (result.exitCode === 44) throw missing(path, 'No such file');
  if (result.exitCode === 45) throw new RpcError('invalid_argument', `path is not a directory: ${path}`);
  const entries = parseEntries(result.stdout);
  if (entries.length > limit) throw new RpcError('resource_exhausted', `${path} holds more than ${limit} entries`);
  return entries;
}

/** The error for what a command inside said. */
export function missing(path: string, stderr: string): RpcError {
  if (/No such file|Not a directory/.test(stderr)) return new RpcError('not_found', `path not found: ${path}`);
  if (/Permission denied/.test(stderr)) return new RpcError('permission_denied', `permission denied: ${path}`);
  return new RpcError('internal', `${path}: ${stderr.slice(0, 300)}`);
}

function parseEntries(output: Buffer): object[] {
  const fields = output.toString().split('\0');
  const entries: object[] = [];
  for (let at = 0; at + FIELDS <= fields.length; at += FIELDS) entries.push(entryOf(fields.slice(at, at + FIELDS)));
  return entries.toSorted((a, b) => ((a as { path: string }).path < (b as { path: string }).path ? -1 : 1));
}

function entryOf(fields: string[]): object {
  const [types = '', size = '0', mode = '0', permissions = '', owner, group, mtime = '0', target = '', path = ''] =
    fields;
  const isLink = types.startsWith('l');
  return {
    name: posix.basename(path),
    // Of a link that leads somewhere: what it leads to.
    type: typeOf(types.slice(1)),
    path,
    size,
    mode: Number.parseInt(mode, 8),
    permissions,
    owner,
    group,
    modifiedTime: new Date(Number(mtime) * 1_000).toISOString(),
    ...(isLink ? { symlinkTarget: posix.resolve(posix.dirname(path), target) } : {}),
  };
}

function typeOf(letter: string): string {
  if (letter === 'f') return 'FILE_TYPE_FILE';
  if (letter === 'd') return 'FILE_TYPE_DIRECTORY';
  return letter === 'N' || letter === 'L' ? 'FILE_TYPE_SYMLINK' : 'FILE_TYPE_UNSPECIFIED';
}
