import { LonghaulError } from '../../../contracts/error-codes.ts';
import type { FileStat } from '../port.ts';
import { writeCommand } from '../write-command.ts';
import type { Inside, Said } from './inside.ts';

const CALL_MS = 60_000;
const WRITE_MS = 30 * 60_000;
const LIST_BYTES = 8 * 1024 * 1024;
const MISSING = 44;

function requireAbsolute(path: string): void {
  if (!path.startsWith('/') || path.includes('\0')) {
    throw new LonghaulError('sandbox_invalid', 'must be an absolute path without NUL', { field: 'path' });
  }
}

function requireDone(path: string, said: Said): Said {
  if (said.exitCode === 0) return said;
  const reason = said.stderr.trim().split('\n').at(-1) ?? '';
  throw new LonghaulError('sandbox_invalid', `${path}: ${reason.slice(0, 300)}`);
}

function ask(inside: Inside, argv: string[], signal: AbortSignal): Promise<Said> {
  return inside.say(argv, { timeoutMs: CALL_MS, maxBytes: LIST_BYTES, signal });
}

function entryOf(path: string, line: string): FileStat {
  const [kind = '', size = '0', mtime = '0'] = line.split('|');
  return { path, type: typeOf(kind), sizeBytes: Number(size), mtimeMs: Math.floor(Number(mtime) * 1_000) };
}

/** First letters of what `find` (f, d, l) and `stat` (regular …, directory, symbolic link) call a type. */
function typeOf(kind: string): FileStat['type'] {
  if (kind === 'f' || kind.startsWith('regular')) return 'file';
  if (kind === 'd' || kind === 'directory') return 'directory';
  return kind === 'l' || kind === 'symbolic link' ? 'symlink' : 'other';
}

export async function stat(inside: Inside, path: string, signal: AbortSignal): Promise<FileStat | null> {
  requireAbsolute(path);
  const said = await ask(inside, ['stat', '-L', '-c', '%F|%s|%.Y', '--', path], signal);
  if (said.exitCode !== 0 && /No such file|Not a directory/.test(said.stderr)) return null;
  return entryOf(path, requireDone(path, said).stdout.trim());
}

export async function listDir(inside: Inside, path: string, signal: AbortSignal): Promise<FileStat[]> {
  requireAbsolute(path);
  const script = `cd -- "$1" && exec find . -mindepth 1 -maxdepth 1 -printf '%f\\0%y|%s|%T@\\0'`;
  const said = requireDone(path, await ask(inside, ['sh', '-c', script, 'list', path], signal));
  const fields = said.stdout.split('\0');
  const found: FileStat[] = [];
  for (let index = 0; index + 1 < fields.length; index += 2) {
    found.push(entryOf(`${path.replace(/\/$/, '')}/${fields[index] ?? ''}`, fields[index + 1] ?? ''));
  }
  return found.toSorted((a, b) => (a.path < b.path ? -1 : 1));
}

/** False when there was none. */
export async function remove(inside: Inside, path: string, signal: AbortSignal): Promise<boolean> {
  requireAbsolute(path);
  const script = `[ -e "$1" ] || [ -L "$1" ] || exit ${MISSING}; exec rm -rf -- "$1"`;
  const said = await ask(inside, ['sh', '-c', script, 'remove', path], signal);
  if (said.exitCode === MISSING) return false;
  requireDone(path, said);
  return true;
}

/** A file's bytes; what is no file is refused before a byte comes. */
export async function* readStream(inside: Inside, path: string, signal: AbortSignal): AsyncIterable<Uint8Array> {
  const found = await stat(inside, path, signal);
  if (found?.type !== 'file') {
    throw new LonghaulError('sandbox_invalid', `${path}: ${found === null ? 'is missing' : 'is no file'}`);
  }
  const reader = (await inside.read(path, signal)).getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

export async function readFile(
  inside: Inside,
  path: string,
  maxBytes: number,
  signal: AbortSignal,
): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  let sizeBytes = 0;
  for await (const piece of readStream(inside, path, signal)) {
    pieces.push(piece.subarray(0, maxBytes - sizeBytes));
    sizeBytes += piece.length;
    if (sizeBytes >= maxBytes) break;
  }
  return Buffer.concat(pieces);
}

/** Through a file aside: E2B's own upload neither keeps permissions nor replaces in one step. */
export async function writeStream(
  inside: Inside,
  path: string,
  content: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): Promise<number> {
  requireAbsolute(path);
  let sizeBytes = 0;
  async function* counted(): AsyncIterable<Uint8Array> {
    for await (const piece of content) {
      sizeBytes += piece.length;
      yield piece;
    }
  }
  const staged = await inside.staged(toStream(counted()), signal);
  // Both sizes: an upload that broke off on the way must not replace the file.
  const script = `f=$1 n=$2; shift 2; [ "$(wc -c < "$f")" -eq "$n" ] || { rm -f "$f"; echo 'did not arrive' >&2; exit 1; }
"$@" < "$f"; code=$?; rm -f "$f"; exit $code`;
  const argv = ['sh', '-c', script, 'write', staged, String(sizeBytes), ...writeCommand(path)];
  requireDone(path, await inside.say(argv, { timeoutMs: WRITE_MS, maxBytes: LIST_BYTES, signal }));
  return sizeBytes;
}

function toStream(content: AsyncIterable<Uint8Array>): ReadableStream<Uint8Array> {
  const iterator = content[Symbol.asyncIterator]();
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      const { done, value } = await iterator.next();
      if (done === true) controller.close();
      else controller.enqueue(value);
    },
    async cancel() {
      await iterator.return?.();
    },
  });
}
