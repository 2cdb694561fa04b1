import { copyFileSync, existsSync, openSync, readSync, closeSync, statSync, truncateSync } from 'node:fs';
import path from 'node:path';

const MAX_LOG_BYTES = 20 * 1024 * 1024;

/** A role's log file. Children write to it directly, so they neither block on nor die with the supervisor. */
export class LogFile {
  readonly file: string;

  constructor(folder: string, role: string) {
    this.file = path.join(folder, `${role}.log`);
  }

  /** Opens it for a child to append to; the caller closes it. */
  open(): number {
    return openSync(this.file, 'a', 0o600);
  }

  sizeBytes(): number {
    return statSync(this.file, { throwIfNoEntry: false })?.size ?? 0;
  }

  /** Up to the last `maxBytes` of what was written after `offset`. */
  read(offset: number, maxBytes = 256 * 1024): string {
    const size = this.sizeBytes();
    // A file shorter than the offset was rotated in between.
    const from = Math.max(size < offset ? 0 : offset, size - maxBytes);
    if (size <= from) return '';
    const fd = openSync(this.file, 'r');
    try {
      const buffer = Buffer.alloc(size - from);
      return buffer.toString('utf8', 0, readSync(fd, buffer, 0, buffer.length, from));
    } finally {
      closeSync(fd);
    }
  }

  /** The last lines, for an error message. */
  tail(lines: number): string {
    return this.read(0, 8 * 1024)
      .trimEnd()
      .split('\n')
      .slice(-lines)
      .join('\n');
  }

  /** Keeps one older part; children go on appending to the same file. */
  rotate(): void {
    if (!existsSync(this.file) || this.sizeBytes() < MAX_LOG_BYTES) return;
    copyFileSync(this.file, `${this.file}.1`);
    truncateSync(this.file, 0);
  }
}
