import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { HarnessHandle, HarnessSpec, ResumeToken, TurnHost, TurnSpec } from '../../activities/harness/port.ts';
import type { TestApi } from '../api/support.ts';
import type { FakeHarness } from '../doubles/harness.ts';
import { startGateway, type RunningGateway } from '../gateway/support.ts';
import { temporalAddress } from './temporal.ts';

const WORKER = fileURLToPath(new URL('harness-worker.mjs', import.meta.url));
const DIST = new URL('../../dist/', import.meta.url).href;

interface Message {
  id: number;
  op: string;
  args: unknown[];
  run: number;
  what: 'cancel' | 'park' | 'detach';
  value?: unknown;
  error?: string;
}

type Stops = Record<Message['what'], AbortController>;

/** One worker's connection to the harness of the test; what it was told to run goes on when it is gone. */
class WorkerConnection {
  private readonly socket: Socket;
  private readonly harness: () => FakeHarness;
  private readonly stops = new Map<number, Stops>();
  private readonly waiting = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>();
  private lastId = 0;

  constructor(socket: Socket, harness: () => FakeHarness) {
    this.socket = socket;
    this.harness = harness;
    // A killed worker resets its connection.
    const lines = createInterface({ input: socket }).on('error', () => undefined);
    lines.on('line', (line) => void this.take(JSON.parse(line) as Message));
    socket.on('error', () => undefined);
    socket.once('close', () => {
      for (const { reject } of this.waiting.values()) reject(new Error('the worker is gone'));
    });
  }

  private async take(message: Message): Promise<void> {
    if (message.op === 'told') {
      const asked = this.waiting.get(message.id);
      this.waiting.delete(message.id);
      if (message.error === undefined) asked?.resolve(message.value);
      else asked?.reject(new Error(message.error));
    } else if (message.op === 'abort') this.stops.get(message.run)?.[message.what].abort();
    else {
      try {
        this.send({ id: message.id, value: (await this.run(message)) ?? null });
      } catch (error) {
        this.send({ id: message.id, error: String(error) });
      }
    }
  }

  private async run({ op, args }: Message): Promise<unknown> {
    const harness = this.harness();
    const [first, second, third] = args;
    switch (op) {
      case 'capabilities':
        return harness.capabilities();
      case 'open':
        return harness.open(first as HarnessSpec, second as ResumeToken | null);
      case 'runTurn': {
        const { host, stops } = this.host(third as number);
        return harness.runTurn(first as HarnessHandle, second as TurnSpec, host, stops.cancel.signal);
      }
      case 'exportState':
        return Buffer.from(await harness.exportState(first as HarnessHandle)).toString('base64');
      case 'importState':
        return harness.importState(first as HarnessSpec, second as ResumeToken, Buffer.from(third as string, 'base64'));
      case 'close':
        return harness.close(first as HarnessSpec, second as ResumeToken | null, third as boolean);
      default:
        throw new Error(`nobody knows ${op}`);
    }
  }

  private host(run: number): { host: TurnHost; stops: Stops } {
    const stops = { cancel: new AbortController(), park: new AbortController(), detach: new AbortController() };
    this.stops.set(run, stops);
    const call = <T>(method: string, ...args: unknown[]): Promise<T> => this.ask(run, method, args) as Promise<T>;
    const host: TurnHost = {
      emit: (event) => call('emit', event),
      permission: (request) => call('permission', request),
      callTool: (request) => call('callTool', request),
      checkpoint: (token) => call('checkpoint', token),
      parkSignal: stops.park.signal,
      detachSignal: stops.detach.signal,
    };
    return { host, stops };
  }

  private ask(run: number, method: string, args: unknown[]): Promise<unknown> {
    if (this.socket.destroyed) return Promise.reject(new Error('the worker is gone'));
    this.lastId += 1;
    const id = this.lastId;
    this.send({ id, op: 'host', run, method, args });
    return new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
  }

  private send(message: object): void {
    this.socket.write(`${JSON.stringify(message)}\n`);
  }
}

export interface HarnessWorkers {
  /** Where their sandboxes are. */
  home: string;
  /** Starts a worker of its own process and waits until it polls. */
  start(): Promise<void>;
  /** SIGKILL. */
  kill(): Promise<void>;
  close(): Promise<void>;
}

/** Workers in processes of their own, one at a time, all of one home, over a harness that lives in the test. */
export async function harnessWorkers(api: TestApi, harness: () => FakeHarness): Promise<HarnessWorkers> {
  const gateway: RunningGateway = await startGateway(api.pool);
  const home = mkdtempSync(path.join(os.tmpdir(), 'longhaul-workers-'));
  const server: Server = createServer((socket) => new WorkerConnection(socket, harness));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const given = {
    dist: DIST,
    databaseUrl: api.databaseUrl,
    temporalAddress: temporalAddress(),
    harnessPort: (server.address() as AddressInfo).port,
    config: {
      databaseUrl: api.databaseUrl,
      gatewayUrl: gateway.url,
      apiUrl: gateway.url,
      harnessHoldMs: 600_000,
      home,
      sandboxRoot: path.join(home, 'sandboxes'),
      sandboxOwner: home,
      taskQueue: api.taskQueue,
      egress: null,
      trustBundleFile: path.join(home, 'trust-bundle.pem'),
    },
  };
  let child: ChildProcess | undefined;
  const kill = async (): Promise<void> => {
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
  };
  return {
    home,
    async start() {
      const env = { ...process.env, HARNESS_WORKER: JSON.stringify(given) };
      child = spawn(process.execPath, [WORKER], { env, stdio: ['ignore', 'pipe', 'inherit'] });
      if (child.stdout === null) throw new Error('the worker has no output');
      await once(createInterface({ input: child.stdout }), 'line');
    },
    kill,
    async close() {
      await kill();
      await gateway.close();
      server.close();
      rmSync(home, { recursive: true, force: true });
    },
  };
}
