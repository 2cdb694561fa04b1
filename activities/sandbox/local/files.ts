import { LonghaulError } from '../../../contracts/error-codes.ts';
import type { FileStat, SandboxRef } from '../port.ts';
import { writeCommand } from '../write-command.ts';
import type { Inside } from './provider.ts';

/**
 * All file work runs inside, as the sandbox's uid: a symlink the sandboxed code planted can only lead to what that code
 * may reach itself.
 */
const LIST_BYTES = 4 * 1024 * 1024;

/** Paths are those of the sandbox. */
export function requireAbsolute(path: string): void {
  if (!path.startsWith('/') || path.includes('\0')) {
    throw new LonghaulError('sandbox_invalid', 'must be an absolute path without NUL', { field: 'path' });
  }
}

/** What a program inside complained about. */
export function refused(path: string, stderr: Buffer): LonghaulError {
  const reason = stderr.toString().trim().split('\n').at(-1) ?? '';
  return new LonghaulError(
    'sandbox_invalid',
    `${path}: ${reason === '' ? 'too large or too slow' : reason.slice(0, 300)}`,
  );
}

export async function readFile(
  inside: Inside,
  ref: SandboxRef,
  path: string,
  maxBytes: number,
  signal: AbortSignal,
): Promise<Uint8Array> {
  requireAbsolute(path);
  // A FIFO would keep the reader waiting for whoever writes to it.
  const script = '[ -p "$1" ] && { echo "is a pipe" >&2; exit 1; }; exec head -c "$2" -- "$1"';
  const argv = ['sh', '-c', script, 'read', path, String(maxBytes)];
  const result = await inside(ref, argv, { maxBytes: maxBytes + 1, signal });
  if (result.code !== 0) throw refused(path, result.stderr);
  return result.stdout;
}

export async function writeFile(
  inside: Inside,
  ref: SandboxRef,
  path: string,
  content: Uint8Array,
  signal: AbortSignal,
): Promise<void> {
  requireAbsolute(path);
  const result = await inside(ref, writeCommand(path, { sizeBytes: content.length }), {
    input: content,
    maxBytes: 4_096,
    signal,
  });
  if (result.code !== 0) throw refused(path, result.stderr);
}

/** First letters of what `find` (f, d, l) and `stat` (regular …, directory, symbolic link) call a type. */
function typeOf(kind: string): FileStat['type'] {
  if (kind === 'f' || kind.startsWith('regular')) return 'file';
  if (kind === 'd' || kind === 'directory') return 'directory';
  if (kind === 'l' || kind === 'symbolic link') return 'symlink';
  return 'other';
}

function parse(path: string, line: string): FileStat {
  const [kind = '', size = '0', mtime = '0'] = line.split('|');
  return { path, type: typeOf(kind), sizeBytes: Number(size), mtimeMs: Math.floor(Number(mtime) * 1_000) };
}

export async function stat(
  inside: Inside,
  ref: SandboxRef,
  path: string,
  signal: AbortSignal,
): Promise<FileStat | null> {
  requireAbsolute(path);
  const result = await inside(ref, ['stat', '-L', '-c', '%F|%s|%.Y', '--', path], { maxBytes: 4_096, signal });
  if (result.code === 0) return parse(path, result.stdout.toString().trim());
  if (/No such file|Not a directory/.test(result.stderr.toString())) return null;
  throw refused(path, result.stderr);
}

export async function listDir(inside: Inside, ref: SandboxRef, path: string, signal: AbortSignal): Promise<FileStat[]> {
  requireAbsolute(path);
  const script = `cd -- "$1" && exec find . -mindepth 1 -maxdepth 1 -printf '%f\\0%y|%s|%T@\\0'`;
  const result = await inside(ref, ['sh', '-c', script, 'list', path], { maxBytes: LIST_BYTES, signal });
  if (result.code !== 0) throw refused(path, result.stderr);
  const fields = result.stdout.toString().split('\0');
  const found: FileStat[] = [];
  for (let index = 0; index + 1 < fields.length; index += 2) {
    const name = fields[index] ?? '';
    found.push(parse(`${path.replace(/\/$/, '')}/${name}`, fields[index + 1] ?? ''));
  }
  return found.toSorted((a, b) => (a.path < b.path ? -1 : 1));
}

/** The mounts themselves stay. */
const KEPT = new Set(['/', '/workspace', '/tmp', '/mnt', '/mnt/session']);

/** A file, or a folder with all that is in it, locked or not. */
export async function remove(inside: Inside, ref: SandboxRef, path: string, signal: AbortSignal): Promise<boolean> {
  requireAbsolute(path);
  if (KEPT.has(path.replace(/(?<=.)\/+$/, ''))) {
    throw new LonghaulError('sandbox_invalid', `${path} cannot be removed`, { field: 'path' });
  }
  const script =
    '[ -e "$1" ] || [ -L "$1" ] || exit 9; rm -rf -- "$1" 2>/dev/null && exit 0; [ -L "$1" ] || chmod -R u+rwX -- "$1"; exec rm -rf -- "$1"';
  const result = await inside(ref, ['sh', '-c', script, 'remove', path], { maxBytes: 4_096, signal });
  if (result.code === 9) return false;
  if (result.code !== 0) throw refused(path, result.stderr);
  return true;
}
