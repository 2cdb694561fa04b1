import { z } from 'zod';
import type { ExecState } from '../../../activities/sandbox/port.ts';
import {
  endE2bProcess,
  findE2bProcess,
  insertE2bProcess,
  listOpenE2bProcesses,
  type E2bProcessRow,
} from '../../../db/queries/e2b-processes.ts';
import { LIMITS } from '../../../contracts/limits.ts';
import type { E2bDeps, LiveSandbox } from '../sandboxes.ts';
import { RpcError } from './connect.ts';
import { commandOf, resizeCommand } from './command.ts';
import { followProcess } from './follow.ts';
import { InputLines } from './input.ts';
import { resolvePath } from './paths.ts';
import { execIdOf, runInside } from './run.ts';
import type { RpcContext, StreamHandler, UnaryHandler } from './services.ts';
import { parseMessage } from './services.ts';

const STARTING_MS = 60_000;
const SIGNALS = { SIGNAL_SIGTERM: 'SIGTERM', SIGNAL_SIGKILL: 'SIGKILL', 15: 'SIGTERM', 9: 'SIGKILL' } as const;

const pid = z.number().int().min(0).max(0xffff_ffff);
const selector = z.union([z.object({ pid }), z.object({ tag: z.string().min(1).max(256) })]);
const side = z.number().int().min(1).max(1_000).catch(80);
const size = z.object({ cols: side, rows: side });
const text = z
  .string()
  .max(128 * 1024)
  .refine((value) => !value.includes('\0'), 'must not contain NUL');

const startRequest = z.object({
  process: z.object({
    cmd: text.min(1),
    args: z.array(text).max(1_000).default([]),
    envs: z.record(z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/), text).default({}),
    cwd: z.string().max(4_096).optional(),
  }),
  pty: z.object({ size: size.default({ cols: 80, rows: 24 }) }).optional(),
  tag: z.string().max(256).optional(),
  /** Programs from before it could be said wanted it open. */
  stdin: z.boolean().default(true),
});
const ofProcess = z.object({ process: selector });
const updateRequest = ofProcess.extend({ pty: z.object({ size }).optional() });
const signalRequest = ofProcess.extend({
  signal: z.union([z.enum(['SIGNAL_SIGTERM', 'SIGNAL_SIGKILL']), z.literal(15), z.literal(9)]),
});
const input = z.union([z.object({ stdin: z.base64() }), z.object({ pty: z.base64() })]);
const inputRequest = ofProcess.extend({ input: input.default({ stdin: '' }) });

/** Service `process.Process`. */
export class ProcessService {
  private readonly deps: E2bDeps;
  private readonly lines: InputLines;

  constructor(deps: E2bDeps) {
    this.deps = deps;
    this.lines = new InputLines(deps.provider);
  }

  readonly unary: Record<string, UnaryHandler> = {
    List: (context) => this.list(context),
    Update: (context, message) => this.update(context, message),
    SendInput: (context, message) => this.sendInput(context, message),
    SendSignal: (context, message) => this.sendSignal(context, message),
    CloseStdin: (context, message) => this.closeStdin(context, message),
  };

  readonly streams: Record<string, StreamHandler> = {
    Start: (context, message, stream) => this.start(context, message, stream),
    Connect: (context, message, stream) => this.connect(context, message, stream),
  };

  /** `StreamInput`: the first message names the process, the others bring its input. */
  async takeInput(context: RpcContext, messages: AsyncIterable<Record<string, unknown>>): Promise<object> {
    let row: E2bProcessRow | undefined;
    for await (const message of messages) {
      if (message['start'] !== undefined) row = await this.require(context, parseMessage(ofProcess, message['start']));
      else if (message['data'] !== undefined) {
        if (row === undefined) throw new RpcError('invalid_argument', 'the first message must be start');
        await this.feed(context, row, parseMessage(z.object({ input }), message['data']).input);
      }
    }
    return {};
  }

  private async start(...[context, message, stream]: Parameters<StreamHandler>): Promise<void> {
    const asked = parseMessage(startRequest, message);
    const draft = {
      tag: asked.tag ?? null,
      cmd: asked.process.cmd,
      args: asked.process.args,
      cwd: asked.process.cwd ?? null,
      kind: asked.pty === undefined ? ('command' as const) : ('pty' as const),
      stdin: asked.pty !== undefined || asked.stdin,
    };
    resolvePath(asked.process.cwd);
    const timeoutMs = context.timeoutMs ?? LIMITS.e2bCommandMs;
    // The row before the command: a pid is never given twice, and what runs can be found after a crash.
    const made = await this.insert(context.live, draft);
    const command = commandOf(asked, context.user, made);
    await this.deps.provider.execStart(
      context.live.ref,
      {
        execId: execIdOf(made),
        argv: command.argv,
        cwd: command.cwd,
        env: command.env,
        timeoutMs: Math.min(timeoutMs, LIMITS.e2bCommandMs),
        ...(draft.stdin ? { stdin: 'open' as const } : {}),
      },
      AbortSignal.timeout(STARTING_MS),
    );
    await followProcess(this.deps, context, stream, { pid: made, kind: draft.kind, from: { out: 0, err: 0 } });
  }

  private async insert(live: LiveSandbox, draft: Parameters<typeof insertE2bProcess>[2]): Promise<number> {
    const limit = LIMITS.e2bOpenProcesses;
    const made = await insertE2bProcess(this.deps.pool, live.row.id, draft, limit);
    if (made !== undefined) return made;
    // Some of them may have ended with nobody looking.
    await this.running(live);
    const again = await insertE2bProcess(this.deps.pool, live.row.id, draft, limit);
    if (again === undefined) throw new RpcError('resource_exhausted', `${limit} commands run in this sandbox already`);
    return again;
  }

  /** What came before is not told again, as E2B does not. */
  private async connect(...[context, message, stream]: Parameters<StreamHandler>): Promise<void> {
    const row = await this.require(context, parseMessage(ofProcess, message));
    const from = await this.endOf(context.live, row.pid, context.signal);
    await followProcess(this.deps, context, stream, { pid: row.pid, kind: row.kind, from });
  }

  private async endOf(live: LiveSandbox, of: number, signal: AbortSignal): Promise<{ out: number; err: number }> {
    let next = { out: 0, err: 0 };
    for (;;) {
      const poll = await this.deps.provider.execPoll(live.ref, execIdOf(of), next, 0, signal);
      if (poll.stdout.length === 0 && poll.stderr.length === 0) return next;
      next = poll.next;
    }
  }

  private async list({ live }: RpcContext): Promise<object> {
    const running = await this.running(live);
    return {
      processes: running.map((row) => ({
        config: { cmd: row.cmd, args: row.args, envs: {}, ...(row.cwd === null ? {} : { cwd: row.cwd }) },
        pid: row.pid,
        ...(row.tag === null ? {} : { tag: row.tag }),
      })),
    };
  }

  /** Those that run; the others are noted as ended. */
  private async running(live: LiveSandbox): Promise<E2bProcessRow[]> {
    const open = await listOpenE2bProcesses(this.deps.pool, live.row.id, LIMITS.e2bOpenProcesses);
    const running: E2bProcessRow[] = [];
    for (const row of open) {
      const { state } = await this.stateOf(live, row);
      if (state === 'running') running.push(row);
      else if (state !== 'absent' || Date.now() - row.startedAt.getTime() > STARTING_MS) {
        await endE2bProcess(this.deps.pool, live.row.id, row.pid);
      }
    }
    return running;
  }

  private async stateOf(live: LiveSandbox, row: E2bProcessRow): Promise<ExecState> {
    const from = { out: Number.MAX_SAFE_INTEGER, err: Number.MAX_SAFE_INTEGER };
    const signal = AbortSignal.timeout(STARTING_MS);
    return (await this.deps.provider.execPoll(live.ref, execIdOf(row.pid), from, 0, signal)).status;
  }

  private async require(
    { live }: RpcContext,
    asked: z.infer<typeof ofProcess>,
    options: { running?: boolean } = {},
  ): Promise<E2bProcessRow> {
    const row = await findE2bProcess(this.deps.pool, live.row.id, asked.process);
    const name = 'pid' in asked.process ? `pid ${asked.process.pid}` : `tag ${asked.process.tag}`;
    const isThere =
      row !== undefined && (options.running !== true || (await this.stateOf(live, row)).state === 'running');
    if (!isThere) throw new RpcError('not_found', `process with ${name} not found`);
    return row;
  }

  private async sendSignal(...[context, message]: Parameters<UnaryHandler>): Promise<object> {
    const asked = parseMessage(signalRequest, message);
    const row = await this.require(context, asked, { running: true });
    const name = SIGNALS[asked.signal];
    const signal = AbortSignal.timeout(STARTING_MS);
    if (name === 'SIGKILL') await this.deps.provider.execKill(context.live.ref, execIdOf(row.pid), signal);
    else await this.deps.provider.execSignal(context.live.ref, execIdOf(row.pid), name, signal);
    return {};
  }

  private async sendInput(...[context, message]: Parameters<UnaryHandler>): Promise<object> {
    const asked = parseMessage(inputRequest, message);
    await this.feed(context, await this.require(context, asked, { running: true }), asked.input);
    return {};
  }

  private async closeStdin(...[context, message]: Parameters<UnaryHandler>): Promise<object> {
    const row = await this.require(context, parseMessage(ofProcess, message), { running: true });
    if (row.kind === 'pty') throw new RpcError('failed_precondition', 'a terminal is closed by sending Ctrl-D');
    await this.lines.send(context.live.ref, execIdOf(row.pid), requireInput(row) && null);
    return {};
  }

  private async feed(context: RpcContext, row: E2bProcessRow, given: z.infer<typeof input>): Promise<void> {
    const isPty = 'pty' in given;
    if (isPty !== (row.kind === 'pty')) {
      throw new RpcError('failed_precondition', isPty ? 'the process has no terminal' : 'the process has a terminal');
    }
    requireInput(row);
    const data = Buffer.from('pty' in given ? given.pty : given.stdin, 'base64');
    await this.lines.send(context.live.ref, execIdOf(row.pid), data);
  }

  private async update(...[context, message]: Parameters<UnaryHandler>): Promise<object> {
    const asked = parseMessage(updateRequest, message);
    const row = await this.require(context, asked, { running: true });
    if (asked.pty === undefined) return {};
    if (row.kind !== 'pty') throw new RpcError('failed_precondition', 'the process has no terminal');
    const { exitCode, stderr } = await runInside(this.deps, context.live, resizeCommand(row.pid, asked.pty.size));
    if (exitCode !== 0) throw new RpcError('internal', `the terminal could not be resized: ${stderr.slice(0, 200)}`);
    return {};
  }
}

function requireInput(row: E2bProcessRow): true {
  if (!row.stdin) throw new RpcError('failed_precondition', 'the process was started without an open input');
  return true;
}
