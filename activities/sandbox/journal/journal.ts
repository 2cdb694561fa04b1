import { randomBytes } from 'node:crypto';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import { LIMITS } from '../../../contracts/limits.ts';
import type { ExecInfo, ExecPoll, ExecSignal, ExecSpec, ExecState, KillReason } from '../port.ts';
import { MARK, markOf, SCRIPTS } from './script.ts';

/** How long one call waits inside for output: each holds a request to the provider open. */
const WAIT_MS = 10_000;
/** Bytes of each stream in one answer. */
const PIECE_BYTES = 1024 * 1024;
const CALL_MS = 30_000;
const KILL_MS = 60_000;
const KEPT_EXECS = 20_000;
const KEPT_OUTPUT_BYTES = 4 * LIMITS.execOutputBytes;
const EXEC_ID = /^[A-Za-z0-9_.-]{1,128}$/;

/** Every command's environment, unless its sandbox or the command says otherwise. */
export const BASE_ENV = {
  PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
  HOME: '/workspace',
  LANG: 'C.UTF-8',
  TERM: 'dumb',
} as const;

/** What a provider's API gives the journal. Errors of the API itself are thrown as `LonghaulError`. */
export interface JournalTransport {
  /** Runs a short command inside to its end. An answer that is cut off is an error, never a short answer. */
  run(
    argv: string[],
    options: { stdin?: Uint8Array; timeoutMs: number; maxBytes: number; signal: AbortSignal },
  ): Promise<Uint8Array>;
  /** Where `run` has no standard input: puts a file there in one step, the folder above it included. */
  stage?(path: string, content: Uint8Array, signal: AbortSignal): Promise<void>;
}

export interface JournalOptions {
  transport: JournalTransport;
  /** Folder inside for the journal: it stays when the sandbox stops, and its path has no spaces. */
  root: string;
  /** `text`: what `run` gives back went through UTF-8, so bytes come encoded. */
  framing: 'raw' | 'text';
  /** Environment of all commands, over `BASE_ENV`. */
  env: Record<string, string>;
  /** Kept by looking now and then; absent: the provider keeps it. */
  disk?: { limitBytes: number; folders: string[] };
}

/**
 * Durable commands where all one can do is to run a program: the part of the port from `execStart` to `execList`, same
 * promises. Holds nothing: make one per call or keep it.
 */
export class Journal {
  private readonly options: JournalOptions;

  constructor(options: JournalOptions) {
    this.options = options;
  }

  async start(spec: ExecSpec, signal: AbortSignal): Promise<void> {
    const { disk, env, root, transport } = this.options;
    const cwd = spec.cwd ?? '/workspace';
    if (!cwd.startsWith('/')) throw new LonghaulError('sandbox_invalid', 'must be absolute', { field: 'cwd' });
    if (spec.argv.length === 0) throw new LonghaulError('sandbox_invalid', 'must not be empty', { field: 'argv' });
    const nonce = newNonce();
    const input = spec.stdin instanceof Uint8Array ? spec.stdin : undefined;
    if (input !== undefined) await transport.stage?.(`${root}/stage.${nonce}`, input, signal);
    const variables = { ...BASE_ENV, ...env, ...spec.env, [MARK]: markOf(this.options.root, spec.execId) };
    const [first] = await this.call(
      'start',
      spec.execId,
      [
        nonce,
        String(Math.max(1, Math.ceil(spec.timeoutMs / 10))),
        String(LIMITS.execOutputBytes),
        String(disk === undefined ? 0 : Math.ceil(disk.limitBytes / 1_024)),
        disk?.folders.join(' ') ?? '',
        spec.stdin === undefined ? 'none' : spec.stdin === 'open' ? 'open' : 'whole',
        cwd,
        ...Object.entries(variables).map(([name, value]) => `${name}=${value}`),
        // So that neither a name with `=` nor one that is not found is taken for something of env's.
        'sh',
        '-c',
        'exec "$@"',
        'sh',
        ...spec.argv,
      ],
      { signal, before: [SCRIPTS.supervisor, String(input?.length ?? 0)], stdin: this.inline(input) },
    );
    if (first !== 'started')
      throw new LonghaulError('sandbox_unavailable', `the command did not start: ${first ?? ''}`);
  }

  async poll(
    execId: string,
    from: { out: number; err: number },
    waitMs: number,
    signal: AbortSignal,
  ): Promise<ExecPoll> {
    const { framing } = this.options;
    const insideMs = Math.max(0, Math.min(waitMs, WAIT_MS));
    const numbers = [from.out, from.err, Math.ceil(insideMs / 10), PIECE_BYTES].map(String);
    const answer = await this.ask('poll', execId, [...numbers, framing], {
      signal,
      timeoutMs: insideMs + CALL_MS,
      maxBytes: 8 * PIECE_BYTES,
    });
    const { head, rest } = splitAnswer(answer);
    const [kind = '', code = '', why = '', out = '0', err = '0', coding = 'raw'] = head;
    const [stdout, stderr] = pieces(rest, coding, Number(out), Number(err));
    return {
      status: stateOf(kind, code, why),
      stdout,
      stderr,
      next: { out: from.out + stdout.length, err: from.err + stderr.length },
    };
  }

  async kill(execId: string, signal: AbortSignal): Promise<void> {
    const [ended] = await this.call('kill', execId, [newNonce()], { signal, timeoutMs: KILL_MS });
    if (ended !== 'ended') throw new LonghaulError('sandbox_unavailable', 'the command could not be killed');
  }

  async input(execId: string, offset: number, data: Uint8Array | null, signal: AbortSignal): Promise<number> {
    const { root, transport } = this.options;
    const nonce = newNonce();
    if (data !== null) await transport.stage?.(`${root}/stage.${nonce}`, data, signal);
    const args = [String(offset), data === null ? 'end' : String(data.length), nonce];
    const [kind, next] = await this.call('input', execId, args, { signal, stdin: this.inline(data ?? undefined) });
    if (kind === 'taken') return Number(next);
    const reason = REFUSED_INPUT[kind ?? ''] ?? 'the command does not run';
    throw new LonghaulError('sandbox_invalid', reason, { field: kind === 'gap' ? 'offset' : 'execId' });
  }

  async signal(execId: string, name: ExecSignal, signal: AbortSignal): Promise<boolean> {
    const [answer] = await this.call('signal', execId, [name.slice('SIG'.length)], { signal });
    return answer === 'yes';
  }

  async list(limit: number, signal: AbortSignal): Promise<ExecInfo[]> {
    const answer = await this.ask('list', 'list', [String(limit)], { signal, maxBytes: 64 * 1024 + limit * 256 });
    const lines = Buffer.from(answer).toString().split('\n');
    const found = lines.flatMap((line) => {
      const [mark, execId, kind, code = '', why = '', begun = '0'] = line.trim().split(' ');
      if (mark !== 'LH1' || execId === undefined || kind === undefined) return [];
      return [{ execId, status: stateOf(kind, code, why), begun: Number(begun) }];
    });
    const newestFirst = found.toSorted((a, b) => b.begun - a.begun).slice(0, limit);
    return newestFirst.map(({ execId, status }) => ({ execId, status }));
  }

  /** Keeps the journal bounded; for now and then. */
  async prune(signal: AbortSignal): Promise<void> {
    await this.call('prune', 'prune', [String(KEPT_EXECS), String(KEPT_OUTPUT_BYTES)], { signal, timeoutMs: KILL_MS });
  }

  private inline(stdin: Uint8Array | undefined): Uint8Array | undefined {
    return this.options.transport.stage === undefined ? stdin : undefined;
  }

  private async call(
    operation: Exclude<keyof typeof SCRIPTS, 'supervisor'>,
    execId: string,
    args: string[],
    options: CallOptions,
  ): Promise<string[]> {
    return splitAnswer(await this.ask(operation, execId, args, options)).head;
  }

  private async ask(
    operation: Exclude<keyof typeof SCRIPTS, 'supervisor'>,
    execId: string,
    args: string[],
    options: CallOptions,
  ): Promise<Uint8Array> {
    if (!EXEC_ID.test(execId)) {
      throw new LonghaulError('sandbox_invalid', 'must match [A-Za-z0-9_.-]{1,128}', { field: 'execId' });
    }
    const { before = [], signal, timeoutMs = CALL_MS, maxBytes = 64 * 1024, stdin } = options;
    const argv = ['sh', '-c', SCRIPTS[operation], 'journal', ...before, this.options.root, execId, ...args];
    if (argv.some((each) => each.includes('\0'))) {
      throw new LonghaulError('sandbox_invalid', 'must not contain NUL', { field: 'argv' });
    }
    return await this.options.transport.run(argv, {
      timeoutMs,
      maxBytes,
      signal,
      ...(stdin === undefined ? {} : { stdin }),
    });
  }
}

interface CallOptions {
  signal: AbortSignal;
  timeoutMs?: number;
  maxBytes?: number;
  before?: string[];
  stdin?: Uint8Array | undefined;
}

const REFUSED_INPUT: Record<string, string> = {
  absent: 'this command was never started',
  closed: 'its input is not open',
  gap: 'what comes before it is missing',
};

function newNonce(): string {
  return randomBytes(9).toString('hex');
}

/** The transport may put lines of its own before the answer, a login shell's for example. */
function splitAnswer(answer: Uint8Array): { head: string[]; rest: Buffer } {
  const all = Buffer.from(answer.buffer, answer.byteOffset, answer.byteLength);
  const begin = all.subarray(0, 4).toString('latin1') === 'LH1 ' ? 0 : all.indexOf('\nLH1 ') + 1;
  const end = all.indexOf(0x0a, begin);
  if (end < 0 || all.subarray(begin, begin + 4).toString('latin1') !== 'LH1 ') {
    throw new LonghaulError('sandbox_unavailable', 'the sandbox gave no answer');
  }
  const line = all
    .subarray(begin + 4, end)
    .toString('latin1')
    .trim();
  const words = line.startsWith('error ') ? [line] : line.split(' ');
  return { head: words, rest: all.subarray(end + 1) };
}

function pieces(rest: Buffer, coding: string, out: number, err: number): [Uint8Array, Uint8Array] {
  let found: [Buffer, Buffer];
  if (coding === 'raw') {
    found = [rest.subarray(0, out), rest.subarray(out, out + err)];
  } else {
    const parts = rest.toString('latin1').split(/^\.\r?$/m);
    const decode = (part = ''): Buffer => Buffer.from(part.replace(/\s/g, ''), coding === 'hex' ? 'hex' : 'base64');
    found = [decode(parts[0]), decode(parts[1])];
  }
  if (found[0].length === out && found[1].length === err) return found;
  throw new LonghaulError('sandbox_unavailable', 'the answer of the sandbox was cut off');
}

const REASONS: Record<string, KillReason> = {
  timeout: 'timeout',
  output_limit: 'output_limit',
  disk_limit: 'disk_limit',
  memory_limit: 'memory_limit',
  signal: 'signal',
};

const SIGNALS: Record<number, string> = {
  1: 'SIGHUP',
  2: 'SIGINT',
  3: 'SIGQUIT',
  4: 'SIGILL',
  6: 'SIGABRT',
  7: 'SIGBUS',
  8: 'SIGFPE',
  9: 'SIGKILL',
  10: 'SIGUSR1',
  11: 'SIGSEGV',
  12: 'SIGUSR2',
  13: 'SIGPIPE',
  14: 'SIGALRM',
  15: 'SIGTERM',
};

/** A shell tells a signal as 128 + its number: a program that exits with such a code looks the same. */
export function stateOf(kind: string, code: string, why: string): ExecState {
  if (kind === 'running') return { state: 'running' };
  if (kind === 'absent') return { state: 'absent' };
  if (kind === 'lost' || why === 'lost') return { state: 'lost' };
  const reason = REASONS[why];
  if (reason !== undefined) return { state: 'killed', reason };
  const exitCode = Number(code);
  return { state: 'exited', exitCode, signal: SIGNALS[exitCode - 128] ?? null };
}
