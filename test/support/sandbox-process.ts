import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { ToolOutcome } from '../../activities/effects/outcome.ts';
import type { SandboxProvider, SandboxRef } from '../../activities/sandbox/port.ts';
import { type ErrorCode, LonghaulError } from '../../contracts/error-codes.ts';

const HOST = fileURLToPath(new URL('sandbox-host.mjs', import.meta.url));
const BUILT_INDEX = fileURLToPath(new URL('../../dist/activities/sandbox/index.js', import.meta.url));

interface Reply {
  id: number;
  value?: unknown;
  error?: { name: string; code: ErrorCode | null; message: string };
}

/** The local provider in a process of its own, which may have another user and may be killed at any moment. */
export interface SandboxProcess {
  provider: SandboxProvider;
  pid: number;
  /** Runs a tool that works on files, as an effect whose commands have this id. */
  tool(name: 'write' | 'edit', ref: SandboxRef, execId: string, input: object): Promise<ToolOutcome>;
  /** SIGKILL: nothing in it gets a chance to tidy up. */
  kill(): Promise<void>;
}

function bytesInside(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(bytesInside);
  if (value instanceof Uint8Array) return { base64: Buffer.from(value).toString('base64') };
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, bytesInside(each)]));
}

function revive(_key: string, each: unknown): unknown {
  const isBytes = each !== null && typeof each === 'object' && 'base64' in each && typeof each.base64 === 'string';
  return isBytes ? Buffer.from(each.base64 as string, 'base64') : each;
}

class Calls {
  private readonly waiting = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>();
  private readonly child: ChildProcess;
  private lastId = 0;

  constructor(child: ChildProcess) {
    this.child = child;
    if (child.stdout === null) throw new Error('the sandbox process has no output');
    const lines = createInterface({ input: child.stdout });
    lines.on('line', (line) => this.settle(JSON.parse(line, revive) as Reply));
    child.stdin?.on('error', () => undefined);
    child.once('close', () => {
      for (const { reject } of this.waiting.values()) reject(new Error('the sandbox process ended'));
      this.waiting.clear();
    });
  }

  private settle(reply: Reply): void {
    const waiting = this.waiting.get(reply.id);
    this.waiting.delete(reply.id);
    if (reply.error === undefined) waiting?.resolve(reply.value);
    else if (reply.error.code !== null && reply.error.name === 'LonghaulError')
      waiting?.reject(new LonghaulError(reply.error.code, reply.error.message));
    else waiting?.reject(Object.assign(new Error(reply.error.message), { name: reply.error.name }));
  }

  call<T>(method: string, args: unknown[], signal?: AbortSignal): Promise<T> {
    this.lastId += 1;
    const id = this.lastId;
    const answer = new Promise<unknown>((resolve, reject) => this.waiting.set(id, { resolve, reject }));
    this.send({ id, method, args: bytesInside(args) });
    const abort = (): void => this.send({ id, method: 'abort' });
    if (signal?.aborted === true) abort();
    else signal?.addEventListener('abort', abort, { once: true });
    return answer.finally(() => signal?.removeEventListener('abort', abort)) as Promise<T>;
  }

  private send(message: object): void {
    this.child.stdin?.write(`${JSON.stringify(message)}\n`);
  }
}

/** The calls the tests of this process make; streams do not pass its pipe. */
function proxy(calls: Calls): SandboxProvider {
  const known: Partial<SandboxProvider> = {
    name: 'local',
    capabilities: () => calls.call('capabilities', []),
    create: (spec, key, signal) => calls.call('create', [spec, key], signal),
    get: (ref, signal) => calls.call('get', [ref], signal),
    list: async function* list(owner, signal) {
      yield* await calls.call<never[]>('list', [owner], signal);
    },
    extend: (ref, ttlMs, signal) => calls.call('extend', [ref, ttlMs], signal),
    pause: (ref, signal) => calls.call('pause', [ref], signal),
    resume: (ref, signal) => calls.call('resume', [ref], signal),
    destroy: (ref, signal) => calls.call('destroy', [ref], signal),
    execStart: (ref, spec, signal) => calls.call('execStart', [ref, spec], signal),
    execPoll: (ref, execId, from, waitMs, signal) => calls.call('execPoll', [ref, execId, from, waitMs], signal),
    execKill: (ref, execId, signal) => calls.call('execKill', [ref, execId], signal),
    readFile: (ref, path, maxBytes, signal) => calls.call('readFile', [ref, path, maxBytes], signal),
    writeFile: (ref, path, content, signal) => calls.call('writeFile', [ref, path, content], signal),
    stat: (ref, path, signal) => calls.call('stat', [ref, path], signal),
    listDir: (ref, path, signal) => calls.call('listDir', [ref, path], signal),
  };
  return known as SandboxProvider;
}

/** `uid` null: the user of the tests. `env` is what must not be found inside any sandbox. */
export function startSandboxProcess(options: {
  rootDir: string;
  uid: number | null;
  env?: Record<string, string>;
}): SandboxProcess {
  const args = [HOST, BUILT_INDEX, options.rootDir, options.uid === null ? '' : String(options.uid)];
  const child = spawn(process.execPath, args, {
    env: { PATH: '/usr/bin:/bin', ...options.env },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const calls = new Calls(child);
  const kill = async (): Promise<void> => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const closed = once(child, 'close');
    child.kill('SIGKILL');
    await closed;
  };
  const tool: SandboxProcess['tool'] = (name, ref, execId, input) =>
    calls.call('runTool', [name, ref, execId, input], AbortSignal.timeout(180_000));
  return { provider: proxy(calls), pid: child.pid ?? 0, tool, kill };
}
