import type { ProcessIdentity } from '../../sandbox/local/host.ts';

/** A program that talks in lines over its standard input and output. */
export interface StdioProcess {
  /** What another worker needs to find or end it; plain JSON, stored. */
  readonly ref: StdioRef;
  /** Whole lines of its output, in order; ends when the program has. To be read once. */
  lines(): AsyncIterable<StdioLine>;
  /** Rejects when the program has ended. */
  write(line: string): Promise<void>;
  /** Resolves when the program has ended, or when nobody can say any more whether it runs. */
  readonly ended: Promise<StdioEnd>;
  /** Lets go of it: where the place allows that, the program goes on. */
  release(): void;
}

export interface StdioLine {
  text: string;
  /** Where the next line begins in all that the program has said. */
  next: number;
}

export interface StdioEnd {
  /** In words, with the end of what it said on standard error; goes into logs and errors. */
  reason: string;
}

export type StdioRef =
  { kind: 'local'; identity: ProcessIdentity; marker: string } | { kind: 'sandbox'; execId: string };

export interface StdioSpec {
  /** Names the program's processes: whoever has the marker ends all of them. */
  marker: string;
  argv: string[];
  /** All of its environment. */
  env: Record<string, string>;
  cwd: string;
}

/** A file of a folder that is taken along. */
export interface PlacedFile {
  /** Below the folder. */
  path: string;
  content: Uint8Array;
}

/** Where programs of harnesses run, with the files they need there. */
export interface StdioPlace {
  /** Programs outlive the worker, and `attach` finds them. */
  readonly survivesWorker: boolean;
  start(spec: StdioSpec, signal: AbortSignal): Promise<StdioProcess>;
  /** Goes on reading at `from`; undefined when the program is gone. */
  attach(ref: StdioRef, from: number, signal: AbortSignal): Promise<StdioProcess | undefined>;
  /** Ends every process with the marker. Repeatable. */
  end(marker: string, signal: AbortSignal): Promise<void>;
  writeFile(path: string, content: Uint8Array, signal: AbortSignal): Promise<void>;
  /** Every file below a folder; empty when there is none. More than `maxBytes` is refused. */
  readFolder(folder: string, maxBytes: number, signal: AbortSignal): Promise<PlacedFile[]>;
  remove(path: string, signal: AbortSignal): Promise<void>;
}

/** Nothing a harness says in one line is longer. */
export const MAX_LINE_BYTES = 32 * 1024 * 1024;

/** Splits what comes in pieces into whole lines and tells where each ends. */
export class LineSplitter {
  #offset: number;
  #rest: Buffer[] = [];
  #restBytes = 0;

  /** `from`: where the first byte stands in all that was said; it begins a line. */
  constructor(from: number) {
    this.#offset = from;
  }

  /** Throws when a line is too long to be one. */
  push(chunk: Buffer): StdioLine[] {
    const lines: StdioLine[] = [];
    let begin = 0;
    for (let end = chunk.indexOf(10); end !== -1; end = chunk.indexOf(10, begin)) {
      const line = Buffer.concat([...this.#rest, chunk.subarray(begin, end)]);
      this.#offset += line.length + 1;
      this.#rest = [];
      this.#restBytes = 0;
      begin = end + 1;
      lines.push({ text: line.toString('utf8'), next: this.#offset });
    }
    this.#rest.push(chunk.subarray(begin));
    this.#restBytes += chunk.length - begin;
    if (this.#restBytes > MAX_LINE_BYTES) throw new Error(`a line of more than ${MAX_LINE_BYTES} bytes`);
    return lines;
  }
}
