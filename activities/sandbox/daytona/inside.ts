import { randomUUID } from 'node:crypto';
import { Readable } from 'node:stream';
import type { Sandbox } from '@daytonaio/sdk';
import { LonghaulError } from '../../../contracts/error-codes.ts';

/** Where files wait on their way in and out. */
const STAGE = '/tmp/.longhaul-stage';
/** A single argument may have 128 KiB; what is larger goes by a file. */
const INLINE_CHARACTERS = 90_000;
const INLINE_INPUT_BYTES = 24 * 1024;
const SHORT_MS = 60_000;
const TRANSFER_S = 30 * 60;
const ERROR_BYTES = 16_384;

export interface InsideResult {
  code: number;
  stdout: Buffer;
  stderr: Buffer;
}

export function quoted(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}

/**
 * What a script prints, both streams merged and as text: that is all the daemon gives. It splits the line it is told at
 * blanks and quotes, without a shell, so the script goes in as base64.
 */
export async function runScript(
  sandbox: Sandbox,
  script: string,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<string> {
  const encoded = Buffer.from(script).toString('base64');
  const seconds = Math.ceil(timeoutMs / 1_000);
  const run = async (line: string): Promise<string> =>
    (await sandbox.process.executeCommand(line, '/', undefined, seconds)).result;
  if (encoded.length < INLINE_CHARACTERS) return run(`sh -c "echo ${encoded}|base64 -d|sh"`);
  const path = `${STAGE}/${randomUUID()}`;
  await upload(sandbox, path, Buffer.from(script), signal);
  try {
    return await run(`sh ${path}`);
  } finally {
    await forget(sandbox, path);
  }
}

/** Exit code of a command that printed more than it may. */
const OVER = 200;

/** So that exit code and both streams come back apart, byte for byte. */
function framed(argv: string[], stdin: string, maxBytes: number): string {
  return [
    'd=$(mktemp -d /tmp/.longhaul-call.XXXXXXXX) || exit 1',
    `trap 'rm -rf "$d"' EXIT`,
    `${stdin} ( ${argv.map(quoted).join(' ')} ) > "$d/out" 2> "$d/err"`,
    'c=$?',
    `[ "$(head -c ${maxBytes + 1} "$d/out" | wc -c)" -le ${maxBytes} ] || c=${OVER}`,
    `printf 'longhaul %d\\n' "$c"`,
    `[ "$c" = ${OVER} ] || base64 < "$d/out"`,
    `printf '.\\n'`,
    `tail -c ${ERROR_BYTES} "$d/err" | base64`,
  ].join('\n');
}

function bytesOf(base64: string): Buffer {
  return Buffer.from(base64, 'base64');
}

function parse(text: string): InsideResult {
  const [, code, rest] = /(?:^|\n)longhaul (\d+)\n([\s\S]*)$/.exec(text) ?? [];
  const end = rest?.startsWith('.\n') === true ? 0 : (rest?.indexOf('\n.\n') ?? -1) + 1;
  if (code === undefined || rest === undefined || (end === 0 && !rest.startsWith('.\n'))) {
    throw new LonghaulError('sandbox_unavailable', `the sandbox could not run a command: ${text.slice(-200)}`);
  }
  return { code: Number(code), stdout: bytesOf(rest.slice(0, end)), stderr: bytesOf(rest.slice(end + 2)) };
}

/** One short command, to its end; not for the agent's, which outlive their caller. */
export async function runInside(
  sandbox: Sandbox,
  argv: string[],
  options: { input?: Uint8Array; maxBytes: number; signal: AbortSignal },
): Promise<InsideResult> {
  const { input, maxBytes, signal } = options;
  const isInline = (input?.length ?? 0) <= INLINE_INPUT_BYTES;
  const inline = Buffer.from(isInline ? (input ?? []) : []).toString('base64');
  const staged = isInline ? undefined : `${STAGE}/${randomUUID()}`;
  const stdin = staged === undefined ? `printf %s '${inline}' | base64 -d |` : `cat ${staged} |`;
  if (staged !== undefined && input !== undefined) await upload(sandbox, staged, input, signal);
  try {
    return parse(await runScript(sandbox, framed(argv, stdin, maxBytes), SHORT_MS, signal));
  } finally {
    if (staged !== undefined) await forget(sandbox, staged);
  }
}

/** Should it fail, the file goes with the sandbox. */
async function forget(sandbox: Sandbox, path: string): Promise<void> {
  await sandbox.process.executeCommand(`rm -f ${path}`, '/', undefined, SHORT_MS / 1_000).catch(() => undefined);
}

/** To a path without odd characters: they would not survive a multipart header. Makes the folders above it. */
export async function upload(
  sandbox: Sandbox,
  path: string,
  content: Uint8Array | AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): Promise<void> {
  const source = Readable.from(content instanceof Uint8Array ? [content] : content, { objectMode: false });
  await sandbox.fs.uploadFileStream(source, path, { signal, timeout: TRANSFER_S });
}

/** Streams a file in and hands its path to `install`, with the number of bytes that were sent. */
export async function withUpload<T>(
  sandbox: Sandbox,
  content: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
  install: (path: string, sizeBytes: number) => Promise<T>,
): Promise<T> {
  const path = `${STAGE}/${randomUUID()}`;
  let sizeBytes = 0;
  // The SDK tells a source that broke off in words of its own; the caller wants to know why.
  const broken: { reason?: unknown } = {};
  async function* counted(): AsyncIterable<Uint8Array> {
    try {
      for await (const piece of content) {
        sizeBytes += piece.length;
        yield piece;
      }
    } catch (error) {
      broken.reason = error;
      throw error;
    }
  }
  try {
    await upload(sandbox, path, counted(), signal);
    return await install(path, sizeBytes);
  } catch (error) {
    throw 'reason' in broken ? broken.reason : error;
  } finally {
    await forget(sandbox, path);
  }
}

async function arrived(pieces: AsyncIterator<Buffer>, path: string): Promise<IteratorResult<Buffer>> {
  try {
    return await pieces.next();
  } catch (cause) {
    throw new LonghaulError('sandbox_unavailable', `${path}: the connection broke`, { cause });
  }
}

/** Streams a file out, by a link without odd characters. */
export async function* download(
  sandbox: Sandbox,
  path: string,
  sizeBytes: number,
  signal: AbortSignal,
): AsyncIterable<Uint8Array> {
  const link = `${STAGE}/${randomUUID()}`;
  const script = `mkdir -p ${STAGE} && ln -s -- "$1" ${link}`;
  const made = await runInside(sandbox, ['sh', '-c', script, 'link', path], { maxBytes: 1_024, signal });
  if (made.code !== 0) throw new LonghaulError('sandbox_invalid', `${path}: ${made.stderr.toString().slice(0, 300)}`);
  try {
    const stream = await sandbox.fs.downloadFileStream(link, { signal, timeout: TRANSFER_S });
    let got = 0;
    stream.once('error', () => undefined);
    const pieces = (stream as AsyncIterable<Buffer>)[Symbol.asyncIterator]();
    try {
      for (let next = await arrived(pieces, path); next.done !== true; next = await arrived(pieces, path)) {
        got += next.value.length;
        yield next.value;
      }
    } finally {
      stream.destroy();
    }
    // A connection that breaks may look like the end of the file.
    if (got < sizeBytes) throw new LonghaulError('sandbox_unavailable', `${path}: only ${got} bytes arrived`);
  } finally {
    await forget(sandbox, link);
  }
}
