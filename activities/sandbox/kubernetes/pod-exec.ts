import { PassThrough, Writable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import type { Exec, V1Status } from '@kubernetes/client-node';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import type { Cluster } from './api.ts';
import { deferred } from './deferred.ts';
import { normalised } from './errors.ts';
import { CONTAINER } from './objects.ts';

/** What is on its way to a slow reader before the connection is held. */
const QUEUE_BYTES = 4 * 1024 * 1024;
const SEND_BYTES = 256 * 1024;
const DRAIN_MS = 5;

export interface ExecAnswer {
  code: number;
  stdout: Buffer;
  stderr: Buffer;
}

interface ExecRequest {
  pod: string;
  argv: string[];
  input?: AsyncIterable<Uint8Array>;
  /** A longer answer is an error. */
  maxBytes: number;
  timeoutMs: number;
  signal: AbortSignal;
}

type Socket = Awaited<ReturnType<Exec['exec']>>;

/** A Status object tells the exit code in a cause; without one the command did not run. */
function exitCodeOf(status: V1Status): number {
  if (status.status === 'Success') return 0;
  const cause = status.details?.causes?.find((each) => each.reason === 'ExitCode');
  const code = Number(cause?.message);
  if (cause !== undefined && Number.isInteger(code)) return code;
  throw new LonghaulError('sandbox_unavailable', `kubernetes: run a command: ${(status.message ?? '').slice(0, 300)}`);
}

class Gathered extends Writable {
  readonly pieces: Buffer[] = [];
  sizeBytes = 0;
  private readonly onPiece: (sizeBytes: number) => void;

  constructor(onPiece: (sizeBytes: number) => void) {
    super();
    this.onPiece = onPiece;
  }

  override _write(piece: Buffer, _encoding: string, done: () => void): void {
    this.pieces.push(piece);
    this.sizeBytes += piece.length;
    this.onPiece(this.sizeBytes);
    done();
  }

  get content(): Buffer {
    return Buffer.concat(this.pieces);
  }
}

/** One running command of a pod: `v5.channel.k8s.io` over a WebSocket, by the official client. */
class Running {
  readonly status: Promise<V1Status>;
  private readonly socket: Socket;
  private readonly stdin: PassThrough | null;

  private constructor(socket: Socket, stdin: PassThrough | null, status: Promise<V1Status>) {
    this.socket = socket;
    this.stdin = stdin;
    this.status = status;
  }

  static async start(
    cluster: Cluster,
    request: Pick<ExecRequest, 'pod' | 'argv'> & { hasInput: boolean },
    stdout: Writable,
    stderr: Writable,
  ): Promise<Running> {
    const { client, config } = await cluster.connect();
    const stdin = request.hasInput ? new PassThrough() : null;
    const ended = deferred<V1Status>();
    const { pod, argv } = request;
    const exec = new client.Exec(config);
    const socket = await exec.exec(
      cluster.namespace,
      pod,
      CONTAINER,
      argv,
      stdout,
      stderr,
      stdin,
      false,
      ended.resolve,
    );
    // After its last word the library closes it; before, it broke.
    const broken = new LonghaulError('sandbox_unavailable', 'kubernetes: run a command: the connection broke');
    socket.once('close', () => ended.reject(broken));
    socket.once('error', () => ended.reject(broken));
    return new Running(socket, stdin, ended.promise);
  }

  /** Never ends the input: older servers take that for the end of the command. Whoever reads it knows how much comes. */
  async send(input: AsyncIterable<Uint8Array>): Promise<void> {
    for await (const piece of input) {
      for (let from = 0; from < piece.length; from += SEND_BYTES) {
        this.stdin?.write(piece.subarray(from, from + SEND_BYTES));
        while (this.socket.bufferedAmount > QUEUE_BYTES && this.socket.readyState === this.socket.OPEN) {
          await delay(DRAIN_MS);
        }
        if (this.socket.readyState !== this.socket.OPEN) return;
      }
    }
  }

  hold(isHeld: boolean): void {
    if (isHeld) this.socket.pause();
    else this.socket.resume();
  }

  close(): void {
    this.stdin?.destroy();
    this.socket.terminate();
  }
}

/** Runs a command of the pod to its end. */
export async function execInPod(cluster: Cluster, request: ExecRequest): Promise<ExecAnswer> {
  const { input, maxBytes, signal, timeoutMs } = request;
  let running: Running | undefined;
  const stopped = deferred<never>();
  const giveUp = (): void => stopped.reject(signal.reason);
  const late = new LonghaulError('sandbox_unavailable', 'kubernetes: run a command: it takes too long');
  const timer = setTimeout(() => stopped.reject(late), timeoutMs);
  signal.addEventListener('abort', giveUp, { once: true });
  try {
    signal.throwIfAborted();
    const isOver = { yes: false };
    const stdout = new Gathered((sizeBytes) => {
      if (sizeBytes <= maxBytes || isOver.yes) return;
      isOver.yes = true;
      running?.close();
    });
    const stderr = new Gathered((sizeBytes) => {
      if (sizeBytes > QUEUE_BYTES) running?.close();
    });
    const started = Running.start(cluster, { ...request, hasInput: input !== undefined }, stdout, stderr);
    running = await Promise.race([started, stopped.promise]);
    if (input !== undefined) await Promise.race([running.send(input), running.status, stopped.promise]);
    const status = await Promise.race([running.status, stopped.promise]).catch((error: unknown) => {
      if (isOver.yes) return null;
      throw error;
    });
    const code = status === null ? 137 : exitCodeOf(status);
    return { code, stdout: stdout.content, stderr: stderr.content };
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    throw normalised(error, 'run a command');
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', giveUp);
    running?.close();
  }
}

/** The standard output of a command as it comes; its end is told only when the command ended well. */
export async function* streamFromPod(
  cluster: Cluster,
  request: Omit<ExecRequest, 'input' | 'maxBytes' | 'timeoutMs'>,
  refused: (stderr: Buffer) => LonghaulError,
): AsyncIterable<Uint8Array> {
  const { signal } = request;
  const queue = new PassThrough({ highWaterMark: QUEUE_BYTES });
  const stderr = new Gathered(() => undefined);
  const stdout = new Writable({
    write: (piece: Buffer, _encoding, done) => {
      if (!queue.write(piece)) {
        running.hold(true);
        queue.once('drain', () => running.hold(false));
      }
      done();
    },
  });
  let running: Running;
  try {
    running = await Running.start(cluster, { ...request, hasInput: false }, stdout, stderr);
  } catch (error) {
    throw normalised(error, 'read a file');
  }
  const abort = (): void => {
    queue.destroy(signal.reason as Error);
  };
  signal.addEventListener('abort', abort, { once: true });
  const ended = running.status.then((status) => {
    if (exitCodeOf(status) !== 0) throw refused(stderr.content);
    return queue.end();
  });
  ended.catch((error: unknown) => queue.destroy(error as Error));
  try {
    yield* queue as AsyncIterable<Buffer>;
  } finally {
    signal.removeEventListener('abort', abort);
    running.close();
  }
}
