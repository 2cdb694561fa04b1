import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { ToolOutcome } from '../../activities/effects/outcome.ts';
import type { PortTarget, SandboxProvider, SandboxRef } from '../../activities/sandbox/port.ts';
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
    return this.callAs<T>(this.nextId(), method, args, signal);
  }

  nextId(): number {
    this.lastId += 1;
    return this.lastId;
  }

  callAs<T>(id: number, method: string, args: unknown[], signal?: AbortSignal): Promise<T> {
    const answer = new Promise<unknown>((resolve, reject) => this.waiting.set(id, { resolve, reject }));
    this.send({ id, method, args: bytesInside(args) });
    const abort = (): void => this.send({ id, method: 'abort' });
    if (signal?.aborted === true) abort();
    else signal?.addEventListener('abort', abort, { once: true });
    return answer.finally(() => signal?.removeEventListener('abort', abort)) as Promise<T>;
  }

  send(message: object): void {
    this.child.stdin?.write(`${JSON.stringify(message)}\n`);
  }
}

/** A socket to the other process for bytes that are no JSON; `call` must make it connect to the path it is given. */
async function withSocket<T>(
  call: (socketPath: string) => Promise<T>,
): Promise<{ socket: Socket; answer: Promise<T> }> {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'longhaul-stream-'));
  const socketPath = path.join(folder, 's');
  const server = createServer({ allowHalfOpen: true });
  try {
    server.listen(socketPath);
    await once(server, 'listening');
    chmodSync(folder, 0o755);
    chmodSync(socketPath, 0o666);
    const connected = once(server, 'connection') as Promise<[Socket]>;
    const answer = call(socketPath);
    answer.catch(() => undefined);
    // Who fails before it connects never will.
    const [socket] = await Promise.race([connected, answer.then(() => connected)]);
    socket.on('error', () => undefined);
    return { socket, answer };
  } finally {
    server.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

async function writeStream(
  calls: Calls,
  ref: SandboxRef,
  file: string,
  content: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): Promise<number> {
  const id = calls.nextId();
  const { socket, answer } = await withSocket((at) => calls.callAs<number>(id, 'writeStream', [ref, file, at], signal));
  const closed = once(socket, 'close');
  try {
    for await (const piece of content) {
      if (socket.destroyed) break;
      if (!socket.write(piece)) await Promise.race([once(socket, 'drain'), closed]);
    }
    calls.send({ id, method: 'ended' });
  } catch (error) {
    calls.send({ id, method: 'broken', error: String(error) });
  }
  socket.end();
  return answer;
}

async function* readStream(
  calls: Calls,
  ref: SandboxRef,
  file: string,
  signal: AbortSignal,
): AsyncIterable<Uint8Array> {
  const { socket, answer } = await withSocket((at) => calls.call<undefined>('readStream', [ref, file, at], signal));
  try {
    for await (const piece of socket) yield piece as Uint8Array;
    await answer;
  } finally {
    socket.destroy();
  }
}

async function openPort(calls: Calls, ref: SandboxRef, port: number, signal: AbortSignal): Promise<PortTarget> {
  const found = await calls.call<{ type: 'stream'; id: number } | { type: 'url' }>('openPort', [ref, port], signal);
  if (found.type === 'url') return found as PortTarget;
  const connect = async (): Promise<Socket> => {
    const { socket, answer } = await withSocket((at) => calls.call<undefined>('connectPort', [found.id, at]));
    await answer;
    return socket;
  };
  return { type: 'stream', connect };
}

/** Every call of the port, made over there. */
function proxy(calls: Calls, providerName: string): SandboxProvider {
  return {
    name: providerName,
    capabilities: () => calls.call('capabilities', []),
    create: (spec, key, signal) => calls.call('create', [spec, key], signal),
    get: (ref, signal) => calls.call('get', [ref], signal),
    list: async function* list(owner, signal) {
      yield* await calls.call<never[]>('list', [owner], signal);
    },
    extend: (ref, ttlMs, signal) => calls.call('extend', [ref, ttlMs], signal),
    pause: (ref, signal, options) => calls.call('pause', [ref, options ?? {}], signal),
    resume: (ref, signal) => calls.call('resume', [ref], signal),
    destroy: (ref, signal) => calls.call('destroy', [ref], signal),
    execStart: (ref, spec, signal) => calls.call('execStart', [ref, spec], signal),
    execPoll: (ref, execId, from, waitMs, signal) => calls.call('execPoll', [ref, execId, from, waitMs], signal),
    execKill: (ref, execId, signal) => calls.call('execKill', [ref, execId], signal),
    execInput: (ref, execId, offset, data, signal) => calls.call('execInput', [ref, execId, offset, data], signal),
    execSignal: (ref, execId, name, signal) => calls.call('execSignal', [ref, execId, name], signal),
    execList: (ref, limit, signal) => calls.call('execList', [ref, limit], signal),
    readFile: (ref, file, maxBytes, signal) => calls.call('readFile', [ref, file, maxBytes], signal),
    writeFile: (ref, file, content, signal) => calls.call('writeFile', [ref, file, content], signal),
    stat: (ref, file, signal) => calls.call('stat', [ref, file], signal),
    listDir: (ref, file, signal) => calls.call('listDir', [ref, file], signal),
    readStream: (ref, file, signal) => readStream(calls, ref, file, signal),
    writeStream: (ref, file, content, signal) => writeStream(calls, ref, file, content, signal),
    remove: (ref, file, signal) => calls.call('remove', [ref, file], signal),
    snapshot: (ref, key, signal) => calls.call('snapshot', [ref, key], signal),
    deleteSnapshot: (snapshot, signal) => calls.call('deleteSnapshot', [snapshot], signal),
    listSnapshots: async function* list(owner, signal) {
      yield* await calls.call<never[]>('listSnapshots', [owner], signal);
    },
    setNetwork: (ref, network, signal) => calls.call('setNetwork', [ref, network], signal),
    egressPoint: (ref, signal) => calls.call('egressPoint', [ref], signal),
    openPort: (ref, port, signal) => openPort(calls, ref, port, signal),
  };
}

/**
 * `uid` null: the user of the tests. `env` is what must not be found inside any sandbox. `provider`: another one than the
 * local, with what `createSandboxProviders` needs for it.
 */
export function startSandboxProcess(options: {
  rootDir: string;
  uid: number | null;
  env?: Record<string, string>;
  provider?: { name: string; [option: string]: unknown };
}): SandboxProcess {
  const args = [HOST, BUILT_INDEX, options.rootDir, options.uid === null ? '' : String(options.uid)];
  const given = options.provider === undefined ? {} : { SANDBOX_PROVIDER: JSON.stringify(options.provider) };
  const child = spawn(process.execPath, args, {
    env: { PATH: '/usr/bin:/bin', ...options.env, ...given },
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
  return { provider: proxy(calls, options.provider?.name ?? 'local'), pid: child.pid ?? 0, tool, kill };
}
