import type { JournalTransport } from '../journal/index.ts';
import { refused } from '../local/files.ts';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import { frames, writeCommand, writeStreamCommand } from '../write-command.ts';
import type { Cluster } from './api.ts';
import type { ExecAnswer } from './pod-exec.ts';
import { execInPod } from './pod-exec.ts';

const SHORT_MS = 60_000;
const TRANSFER_MS = 60 * 60_000;
const ANSWER_BYTES = 4_096;
/** A command stands in the address of its request, and what is between here and the cluster limits that. */
const ADDRESS_CHARACTERS = 3_000;
/** Reads the whole command from its input; what follows it there is the command's own. */
const BY_INPUT = ['sh', '-c', 'eval "$(head -c "$1")"', 'by-input'];
/** Gives on exactly so many bytes: the end of the input is not told to every server. */
const COUNTED = ['sh', '-c', 'n=$1; shift; head -c "$n" | "$@"', 'counted'];

function quoted(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}

async function* once(...pieces: Uint8Array[]): AsyncIterable<Uint8Array> {
  for (const piece of pieces) yield await Promise.resolve(piece);
}

interface RunOptions {
  input?: Uint8Array;
  maxBytes: number;
  timeoutMs?: number;
  signal: AbortSignal;
}

/** Short commands in a pod. */
export class PodTransport {
  private readonly cluster: Cluster;

  constructor(cluster: Cluster) {
    this.cluster = cluster;
  }

  run(pod: string, argv: string[], options: RunOptions): Promise<ExecAnswer> {
    const { input, maxBytes, signal, timeoutMs = SHORT_MS } = options;
    const common = { pod, maxBytes, timeoutMs, signal };
    const isLong = argv.reduce((sum, word) => sum + encodeURIComponent(word).length, 0) > ADDRESS_CHARACTERS;
    if (!isLong && input === undefined) return execInPod(this.cluster, { ...common, argv });
    if (!isLong && input !== undefined) {
      return execInPod(this.cluster, {
        ...common,
        argv: [...COUNTED, String(input.length), ...argv],
        input: once(input),
      });
    }
    const source = input === undefined ? '< /dev/null' : '';
    const prefix = input === undefined ? '' : `head -c ${input.length} | `;
    const script = Buffer.from(`set -- ${argv.map(quoted).join(' ')}\n${prefix}"$@" ${source}`);
    const all = input === undefined ? once(script) : once(script, input);
    return execInPod(this.cluster, { ...common, argv: [...BY_INPUT, String(script.length)], input: all });
  }

  /** What the journal of commands needs of a pod. */
  journal(pod: string): JournalTransport {
    return {
      run: async (argv, { stdin, timeoutMs, maxBytes, signal }) => {
        const input = stdin === undefined ? {} : { input: stdin };
        const { stdout, code } = await this.run(pod, argv, { ...input, maxBytes, timeoutMs, signal });
        if (code === 0 || stdout.length > 0) return stdout;
        throw new LonghaulError('sandbox_unavailable', `kubernetes: the journal ended with ${code}`);
      },
      stage: async (path, content, signal) => {
        const argv = writeCommand(path, { sizeBytes: content.length });
        const { code, stderr } = await this.run(pod, argv, { input: content, maxBytes: ANSWER_BYTES, signal });
        if (code !== 0) throw refused(path, stderr);
      },
    };
  }
}

/** As it comes: a source that breaks off, or a worker that dies, leaves the old content. */
export async function writeStream(
  cluster: Cluster,
  pod: string,
  path: string,
  content: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): Promise<number> {
  let sizeBytes = 0;
  const source = frames(content, (size) => {
    sizeBytes += size;
  });
  const broken: { reason?: unknown } = {};
  // Told that no more comes, the command tidies up; of a worker that dies it hears by the end of its input.
  async function* input(): AsyncIterable<Uint8Array> {
    try {
      yield* source;
    } catch (error) {
      broken.reason = error;
      yield Buffer.from('broken\n');
    }
  }
  const argv = writeStreamCommand(path);
  const request = { pod, argv, input: input(), maxBytes: ANSWER_BYTES, timeoutMs: TRANSFER_MS, signal };
  const { code, stderr } = await execInPod(cluster, request);
  if ('reason' in broken) throw broken.reason;
  if (code !== 0) throw refused(path, stderr);
  return sizeBytes;
}
