import { setTimeout as delay } from 'node:timers/promises';
import { anyAbort } from '../../../contracts/abort.ts';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import type { Attached, Engine } from './engine.ts';

/** On a busy machine an engine learns of an end some time after the output's. */
const EXIT_MS = 20_000;

export interface InsideOptions {
  stdin?: Uint8Array | AsyncIterable<Uint8Array>;
  maxBytes: number;
  timeoutMs: number;
  signal: AbortSignal;
}

/** `user`: as whom programs run, in numbers. */
export interface InsideTarget {
  engine: Engine;
  container: string;
  user: string;
}

export interface InsideResult {
  exitCode: number;
  stdout: Buffer;
  stderr: string;
}

const STDERR_BYTES = 4_096;

/** Prepares and starts a program inside. Its end is asked for by `exitCodeOf`. */
export async function attach(
  target: InsideTarget,
  argv: string[],
  stdin: AsyncIterable<Uint8Array> | null,
  signal: AbortSignal,
): Promise<Attached & { execId: string }> {
  const { engine, container, user } = target;
  const { body } = await engine.json<{ Id: string }>('POST', `/containers/${container}/exec`, {
    signal,
    ok: [201],
    body: {
      AttachStdin: stdin !== null,
      AttachStdout: true,
      AttachStderr: true,
      Tty: false,
      User: user,
      WorkingDir: '/',
      Cmd: argv,
    },
  });
  const execId = body?.Id ?? '';
  return { execId, ...(await engine.startExec(execId, stdin, signal)) };
}

/** How a program ended whose output is over; an output that broke off is an error, never a short answer. */
export async function exitCodeOf(engine: Engine, execId: string, signal: AbortSignal): Promise<number> {
  for (const deadlineMs = Date.now() + EXIT_MS; Date.now() < deadlineMs;) {
    const { body } = await engine.json<{ Running: boolean; ExitCode: number | null }>('GET', `/exec/${execId}/json`, {
      signal,
      ok: [200],
    });
    if (body?.Running === false && body.ExitCode !== null) return body.ExitCode;
    await delay(10);
  }
  throw new LonghaulError('sandbox_unavailable', 'the output of a program broke off');
}

/** Runs a short program inside, outside the journal. `withCode` false: the caller does not need to know how it ended. */
export async function runInside(
  target: InsideTarget,
  argv: string[],
  options: InsideOptions & { withCode: boolean },
): Promise<InsideResult> {
  const signal = anyAbort([options.signal, AbortSignal.timeout(options.timeoutMs)]);
  try {
    const stdin = options.stdin instanceof Uint8Array ? once(options.stdin) : (options.stdin ?? null);
    const { frames, fed, execId } = await attach(target, argv, stdin, signal);
    // Told where it is waited for.
    fed.catch(() => undefined);
    const found: { out: Buffer[]; err: Buffer[] } = { out: [], err: [] };
    let [outBytes, errBytes] = [0, 0];
    for await (const { stream, data } of frames) {
      if (stream === 'out') outBytes += data.length;
      else errBytes += data.length;
      if (outBytes > options.maxBytes) throw new LonghaulError('sandbox_invalid', 'the answer is too large');
      if (stream === 'out' || errBytes <= STDERR_BYTES) found[stream].push(data);
    }
    await fed;
    const exitCode = options.withCode ? await exitCodeOf(target.engine, execId, signal) : 0;
    return { exitCode, stdout: Buffer.concat(found.out), stderr: Buffer.concat(found.err).toString() };
  } catch (error) {
    options.signal.throwIfAborted();
    if (!signal.aborted) throw error;
    throw new LonghaulError('sandbox_unavailable', 'the sandbox did not answer in time', { cause: error });
  }
}

async function* once(content: Uint8Array): AsyncIterable<Uint8Array> {
  await Promise.resolve();
  yield content;
}
