import { LIMITS } from '../../contracts/limits.ts';
import type { ToolInput } from '../../contracts/tool-inputs.ts';
import { answerWithin } from '../sandbox/abort.ts';
import type { ExecPoll, ExecState } from '../sandbox/port.ts';
import type { ToolContext, ToolOutcome } from './outcome.ts';
import { done } from './outcome.ts';
import { shorten } from './shorten.ts';

const POLL_MS = 5_000;

/** Collects one stream up to a limit, counting what is beyond it. */
class Collected {
  private readonly parts: Uint8Array[] = [];
  sizeBytes = 0;
  private keptBytes = 0;

  add(bytes: Uint8Array): void {
    this.sizeBytes += bytes.length;
    const room = LIMITS.fileWriteBytes - this.keptBytes;
    if (room <= 0) return;
    const kept = bytes.subarray(0, room);
    this.parts.push(kept);
    this.keptBytes += kept.length;
  }

  bytes(): Uint8Array {
    return Buffer.concat(this.parts);
  }
}

export interface ExecResult {
  status: Exclude<ExecState, { state: 'running' }>;
  stdout: Collected;
  stderr: Collected;
}

/** Starts a command, or re-attaches when its id was started before, and follows it to its end. */
export async function runCommand(context: ToolContext, argv: string[], stdin?: Uint8Array): Promise<ExecResult> {
  const { provider, ref, env } = context.lease;
  const { execId, signal, timeoutMs } = context;
  const spec = { execId, argv, env, timeoutMs, ...(stdin === undefined ? {} : { stdin }) };
  await provider.execStart(ref, spec, answerWithin(signal));
  return followCommand(context);
}

/** Follows a command to its end, whoever started it; `absent` when nobody did. */
export async function followCommand(context: ToolContext): Promise<ExecResult> {
  const { provider, ref } = context.lease;
  const { execId, signal } = context;
  const stdout = new Collected();
  const stderr = new Collected();
  let next = { out: 0, err: 0 };
  for (;;) {
    const poll: ExecPoll = await provider.execPoll(ref, execId, next, POLL_MS, answerWithin(signal, POLL_MS));
    stdout.add(poll.stdout);
    stderr.add(poll.stderr);
    const drained = poll.stdout.length === 0 && poll.stderr.length === 0;
    next = poll.next;
    if (poll.status.state !== 'running' && drained) return { status: poll.status, stdout, stderr };
    signal.throwIfAborted();
  }
}

/** The bash tool. */
export async function bash(context: ToolContext, input: ToolInput<'bash'>): Promise<ToolOutcome> {
  const result = await runCommand(context, ['bash', '-c', input.command]);
  const output = joinOutput(result);
  switch (result.status.state) {
    case 'lost':
    case 'absent':
      return { kind: 'lost', reason: 'the sandbox died while the command ran' };
    case 'killed': {
      const why = {
        timeout: `after ${context.timeoutMs} ms`,
        output_limit: 'for too much output',
        disk_limit: 'for filling the disk',
        memory_limit: 'for using too much memory',
        signal: 'by a signal',
      };
      const text = await shorten(context, output);
      return done(`${text}\n[killed ${why[result.status.reason]}]`.trimStart(), true);
    }
    case 'exited': {
      const { exitCode, signal } = result.status;
      const text = await shorten(context, output);
      if (exitCode === 0) return done(text === '' ? '(no output)' : text);
      return done(`${text}\n[exit code ${exitCode}${signal === null ? '' : `, signal ${signal}`}]`.trimStart(), true);
    }
    default:
      return result.status satisfies never;
  }
}

function joinOutput(result: ExecResult): Uint8Array {
  const stdout = result.stdout.bytes();
  const stderr = result.stderr.bytes();
  if (stderr.length === 0) return stdout;
  const gap = stdout.length > 0 && stdout.at(-1) !== 10 ? '\n' : '';
  return Buffer.concat([stdout, Buffer.from(gap), stderr]);
}
