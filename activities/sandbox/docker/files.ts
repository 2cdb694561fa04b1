import { randomBytes } from 'node:crypto';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import type { FileStat } from '../port.ts';
import { attach, exitCodeOf, runInside, type InsideTarget } from './inside.ts';

/**
 * All file work runs inside, as the sandbox's user: a symlink the sandboxed code planted can only lead to what that code
 * may reach itself. POSIX sh with what coreutils and busybox share.
 */
const SMALL_MS = 30_000;
const STREAM_MS = 3_600_000;
const LIST_BYTES = 4 * 1024 * 1024;
const PIECE_BYTES = 1024 * 1024;

const READ = '[ -p "$1" ] && { echo "is a pipe" >&2; exit 1; }; exec head -c "$2" -- "$1"';
const READ_ALL = '[ -f "$1" ] || { echo "is no file" >&2; exit 1; }; exec cat -- "$1"';
const REMOVE = '[ -e "$1" ] || [ -L "$1" ] || { echo none; exit 0; }; rm -rf -- "$1" && echo gone';
/** The type, size and time of one file, or nothing when it is not there. */
const STAT = '[ -e "$1" ] || { echo none; exit 0; }; exec stat -L -c "%F|%s|%Y" -- "$1"';
const LIST = `cd -- "$1" || exit 1
if find / -maxdepth 0 -printf '' 2>/dev/null; then exec find . -mindepth 1 -maxdepth 1 -printf '%f\\0%y|%s|%T@\\0'; fi
exec find . -mindepth 1 -maxdepth 1 -exec sh -c 'for f; do printf "%s\\0" "\${f#./}"; stat -c "%F|%s|%Y" "$f" | tr "\\n" "\\0"; done' sh {} +`;

/**
 * Replaces a file by its input in one step, following a link. Only what ends with the token arrived whole: a writer that
 * died leaves the old content and nothing beside it.
 */
const WRITE = `
mkdir -p -- "$(dirname -- "$1")" || exit 1
target=$1
hops=0
while [ -L "$target" ] && [ $hops -lt 40 ]; do
  hops=$((hops + 1)) link=$(readlink -- "$target"; echo .) link=\${link%??}
  case $link in /*) target=$link;; *) target=$(dirname -- "$target")/$link;; esac
done
if [ -d "$target" ]; then echo 'is a folder' >&2; exit 1; fi
temporary=$target.$2
trap 'rm -f -- "$temporary"' EXIT
cat > "$temporary" || exit 1
[ "$(tail -c 32 -- "$temporary")" = "$3" ] || { echo 'it broke off' >&2; exit 1; }
set -f
set -- $(ls -lnd -- "$temporary")
size=$(($5 - 32))
dd of="$temporary" bs=1 seek="$size" count=0 2>/dev/null || exit 1
chmod -- "$(stat -c %a -- "$target" 2>/dev/null || echo 644)" "$temporary" && mv -f -- "$temporary" "$target" && echo "$size"
`;

function requireAbsolute(path: string): void {
  if (path.startsWith('/') && !path.includes('\0')) return;
  throw new LonghaulError('sandbox_invalid', 'must be an absolute path without NUL', { field: 'path' });
}

const NO_SPACE = /no space left|quota exceeded/i;

function refused(path: string, stderr: string): LonghaulError {
  const reason = stderr.trim().split('\n').at(-1) ?? '';
  const message = `${path}: ${reason === '' ? 'cannot be used' : reason.slice(0, 300)}`;
  return new LonghaulError(NO_SPACE.test(reason) ? 'sandbox_quota' : 'sandbox_invalid', message);
}

async function small(
  target: InsideTarget,
  path: string,
  script: string,
  args: string[],
  maxBytes: number,
  signal: AbortSignal,
): Promise<Buffer> {
  requireAbsolute(path);
  const argv = ['sh', '-c', script, 'file', path, ...args];
  const result = await runInside(target, argv, { maxBytes, timeoutMs: SMALL_MS, signal, withCode: true });
  if (result.exitCode !== 0) throw refused(path, result.stderr);
  return result.stdout;
}

export function readFile(
  target: InsideTarget,
  path: string,
  maxBytes: number,
  signal: AbortSignal,
): Promise<Uint8Array> {
  return small(target, path, READ, [String(maxBytes)], maxBytes, signal);
}

export async function stat(target: InsideTarget, path: string, signal: AbortSignal): Promise<FileStat | null> {
  const line = (await small(target, path, STAT, [], 4_096, signal)).toString().trim();
  return line === 'none' ? null : parse(path, line);
}

export async function listDir(target: InsideTarget, path: string, signal: AbortSignal): Promise<FileStat[]> {
  const fields = (await small(target, path, LIST, [], LIST_BYTES, signal)).toString().split('\0');
  const found: FileStat[] = [];
  for (let index = 0; index + 1 < fields.length; index += 2) {
    found.push(parse(`${path.replace(/\/$/, '')}/${fields[index] ?? ''}`, fields[index + 1] ?? ''));
  }
  return found.toSorted((a, b) => (a.path < b.path ? -1 : 1));
}

export async function remove(target: InsideTarget, path: string, signal: AbortSignal): Promise<boolean> {
  return (await small(target, path, REMOVE, [], 4_096, signal)).toString().trim() === 'gone';
}

/** In pieces of at most a megabyte. */
export async function* readStream(target: InsideTarget, path: string, signal: AbortSignal): AsyncIterable<Uint8Array> {
  requireAbsolute(path);
  const { frames, execId } = await attach(target, ['sh', '-c', READ_ALL, 'file', path], null, signal);
  let complaint = '';
  for await (const { stream, data } of frames) {
    if (stream === 'err') complaint = (complaint + data.toString()).slice(0, 1_000);
    else for (let at = 0; at < data.length; at += PIECE_BYTES) yield data.subarray(at, at + PIECE_BYTES);
  }
  if ((await exitCodeOf(target.engine, execId, signal)) !== 0) throw refused(path, complaint);
}

export async function writeStream(
  target: InsideTarget,
  path: string,
  content: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): Promise<number> {
  requireAbsolute(path);
  const token = randomBytes(16).toString('hex');
  let broken: unknown;
  async function* framed(): AsyncIterable<Uint8Array> {
    try {
      yield* content;
    } catch (error) {
      broken = error;
      throw error;
    }
    yield Buffer.from(token);
  }
  const argv = ['sh', '-c', WRITE, 'file', path, `longhaul-${token.slice(0, 12)}`, token];
  const options = { stdin: framed(), maxBytes: 4_096, timeoutMs: STREAM_MS, signal, withCode: true };
  let result;
  try {
    result = await runInside(target, argv, options);
  } catch (error) {
    throw broken ?? error;
  }
  if (result.exitCode !== 0) throw refused(path, result.stderr);
  return Number(result.stdout.toString());
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
