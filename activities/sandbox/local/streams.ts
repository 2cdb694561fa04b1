import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { once } from 'node:events';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import type { SandboxRef } from '../port.ts';
import { frames, writeStreamCommand } from '../write-command.ts';
import { refused, requireAbsolute } from './files.ts';
import { CLEAN_ENV } from './host.ts';

/** Pieces a reader gets at most. */
const PIECE_BYTES = 256 * 1024;
const COMPLAINT_BYTES = 4_096;

/** The host's command that runs `argv` inside; throws when the sandbox does not run. */
export type CommandInside = (ref: SandboxRef, argv: string[]) => string[];

class Streamed {
  readonly child: ChildProcessWithoutNullStreams;
  private readonly closed: Promise<number>;
  private complaint = Buffer.alloc(0);

  constructor(command: string[], signal: AbortSignal) {
    const [file = '', ...args] = command;
    this.child = spawn(file, args, { env: CLEAN_ENV, cwd: '/', stdio: 'pipe', signal, killSignal: 'SIGKILL' });
    this.child.stderr.on('data', (chunk: Buffer) => {
      if (this.complaint.length < COMPLAINT_BYTES) this.complaint = Buffer.concat([this.complaint, chunk]);
    });
    this.child.on('error', () => undefined);
    this.child.stdin.on('error', () => undefined);
    this.closed = once(this.child, 'close').then(([code]) => (code as number | null) ?? 137);
    this.closed.catch(() => undefined);
  }

  /** Rejects when the source does; a command that ended before says by its end why. */
  async feed(source: AsyncIterable<Uint8Array>, signal: AbortSignal): Promise<void> {
    const { stdin } = this.child;
    try {
      for await (const piece of source) {
        if (stdin.destroyed) return;
        if (!stdin.write(piece)) await Promise.race([once(stdin, 'drain', { signal }), this.closed]);
      }
    } finally {
      stdin.end();
    }
  }

  async end(path: string, signal: AbortSignal): Promise<void> {
    const code = await this.closed.catch(() => 137);
    signal.throwIfAborted();
    if (code !== 0) throw refused(path, this.complaint);
  }
}

/** Only regular files: a pipe would wait, and a device has no end. */
const READ = '[ -f "$1" ] || { ls -d -- "$1" >/dev/null && echo "is no file" >&2; exit 1; }; exec cat -- "$1"';

/** Nothing of the file waits here longer than the reader takes for a piece. */
export async function* readStream(
  commandInside: CommandInside,
  ref: SandboxRef,
  path: string,
  signal: AbortSignal,
): AsyncIterable<Uint8Array> {
  requireAbsolute(path);
  const streamed = new Streamed(commandInside(ref, ['sh', '-c', READ, 'read', path]), signal);
  try {
    for await (const chunk of streamed.child.stdout) {
      const piece = chunk as Buffer;
      for (let at = 0; at < piece.length; at += PIECE_BYTES) yield piece.subarray(at, at + PIECE_BYTES);
    }
    await streamed.end(path, signal);
  } finally {
    streamed.child.kill('SIGKILL');
  }
}

/** `maxBytes`: what the sandbox may hold at all. */
export async function writeStream(
  commandInside: CommandInside,
  ref: SandboxRef,
  path: string,
  content: AsyncIterable<Uint8Array>,
  options: { maxBytes: number; signal: AbortSignal },
): Promise<number> {
  requireAbsolute(path);
  const { maxBytes, signal } = options;
  const streamed = new Streamed(commandInside(ref, writeStreamCommand(path)), signal);
  let sizeBytes = 0;
  const source = frames(content, (more) => {
    sizeBytes += more;
    if (sizeBytes > maxBytes) throw new LonghaulError('sandbox_quota', `${path}: more than ${maxBytes} bytes`);
  });
  streamed.child.stdout.resume();
  try {
    await streamed.feed(source, signal);
  } catch (error) {
    // The end of the input without its last line leaves the old content, whatever broke it off.
    await streamed.end(path, signal).catch(() => undefined);
    throw error;
  }
  await streamed.end(path, signal);
  return sizeBytes;
}
