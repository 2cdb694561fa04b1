import { randomBytes } from 'node:crypto';
import type { Sandbox } from 'e2b';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import type { JournalTransport } from '../journal/index.ts';

/** One word of a command line may have 128 KiB on Linux, and E2B makes the whole line one. */
const LINE_BYTES = 96 * 1024;
const USER = 'root';

/** What a short command said. */
export interface Said {
  exitCode: number;
  stdout: string;
  stderr: string;
}

/** A sandbox's daemon: short commands and files, as root. The VM is the border. */
export class Inside implements JournalTransport {
  readonly sandbox: Sandbox;
  /** For what is on its way; not seen by programs of other users. */
  private readonly folder: string;

  constructor(sandbox: Sandbox, folder: string) {
    this.sandbox = sandbox;
    this.folder = folder;
  }

  async run(
    argv: string[],
    options: { timeoutMs: number; maxBytes: number; signal: AbortSignal },
  ): Promise<Uint8Array> {
    const said = await this.say(argv, options);
    if (said.exitCode !== 0) {
      throw new LonghaulError('sandbox_unavailable', `a command of the journal failed: ${said.stderr.slice(0, 200)}`);
    }
    return Buffer.from(said.stdout);
  }

  /** Runs a command to its end, whatever that is. */
  async say(argv: string[], options: { timeoutMs: number; maxBytes: number; signal: AbortSignal }): Promise<Said> {
    const line = argv.map(quote).join(' ');
    const isLong = Buffer.byteLength(line) > LINE_BYTES;
    const said = await this.started(isLong ? await this.stored(line, options.signal) : line, options);
    if (said.stdout.length > options.maxBytes) throw new LonghaulError('sandbox_invalid', 'there is too much to tell');
    return said;
  }

  async stage(path: string, content: Uint8Array, signal: AbortSignal): Promise<void> {
    await this.sandbox.files.write(path, new Blob([content]), { user: USER, signal });
  }

  /** A file's bytes from the beginning, in pieces. */
  async read(path: string, signal: AbortSignal): Promise<ReadableStream<Uint8Array>> {
    return await this.sandbox.files.read(path, { format: 'stream', user: USER, signal });
  }

  /** Puts a stream into a file of its own, which the caller removes. */
  async staged(content: ReadableStream<Uint8Array>, signal: AbortSignal): Promise<string> {
    const path = this.newPath('stage');
    await this.sandbox.files.write(path, content, { user: USER, signal });
    return path;
  }

  newPath(kind: string): string {
    return `${this.folder}/${kind}.${randomBytes(9).toString('hex')}`;
  }

  /** A line that is too long for a command becomes a file that removes itself. */
  private async stored(line: string, signal: AbortSignal): Promise<string> {
    const path = this.newPath('call');
    await this.stage(path, Buffer.from(`rm -f ${quote(path)}\nexec ${line}\n`), signal);
    return `sh ${quote(path)}`;
  }

  private async started(
    line: string,
    { timeoutMs, signal }: { timeoutMs: number; signal: AbortSignal },
  ): Promise<Said> {
    try {
      return await this.sandbox.commands.run(line, { user: USER, cwd: '/', timeoutMs, signal });
    } catch (error) {
      if (error instanceof Error && error.name === 'CommandExitError') return error as unknown as Said;
      throw error;
    }
  }
}

export function quote(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}
