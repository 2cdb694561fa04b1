import { randomUUID } from 'node:crypto';
import { z } from 'zod';
import { LIMITS } from '../../../contracts/limits.ts';
import type { E2bDeps, LiveSandbox } from '../sandboxes.ts';
import { RpcError } from './connect.ts';
import { resolvePath } from './paths.ts';
import type { RpcContext, StreamHandler, UnaryHandler } from './services.ts';
import { parseMessage } from './services.ts';
import { watchCommand } from './watch-script.ts';

const watchRequest = z.object({
  path: z.string().max(4_096).default(''),
  recursive: z.boolean().default(false),
  includeEntry: z.literal(false).default(false),
  allowNetworkMounts: z.boolean().default(false),
});
const watcherRequest = z.object({ watcherId: z.string().regex(/^[A-Za-z0-9-]{1,64}$/) });

/** Ids of the server's own commands; those of streams end with the process that answers them. */
const WATCHER_PREFIX = 'e2b-watcher-';
const STREAM_PREFIX = 'e2b-watching-';
const FOLDERS = 2_000;
const CALL_MS = 30_000;
const WAIT_MS = 10_000;
const KEPT_OFFSETS = 1_000;

const TYPES: Record<string, string> = {
  create: 'EVENT_TYPE_CREATE',
  write: 'EVENT_TYPE_WRITE',
  remove: 'EVENT_TYPE_REMOVE',
  rename: 'EVENT_TYPE_RENAME',
  chmod: 'EVENT_TYPE_CHMOD',
};

interface FilesystemEvent {
  name: string;
  type: string;
}

/** Reads a watch's lines from the journal, from where it stands. */
class WatchReader {
  private readonly deps: E2bDeps;
  private readonly live: LiveSandbox;
  private readonly execId: string;
  private next = { out: 0, err: 0 };
  private rest = '';

  constructor(deps: E2bDeps, live: LiveSandbox, execId: string) {
    this.deps = deps;
    this.live = live;
    this.execId = execId;
  }

  /** What is new, waiting for it up to `waitMs`; null when the watch is over. */
  async read(waitMs: number, signal: AbortSignal): Promise<string[] | null> {
    const poll = await this.deps.provider.execPoll(this.live.ref, this.execId, this.next, waitMs, signal);
    this.next = poll.next;
    if (poll.stdout.length === 0 && poll.stderr.length === 0 && poll.status.state !== 'running') return null;
    const lines = (this.rest + Buffer.from(poll.stdout).toString('latin1')).split('\n');
    this.rest = lines.pop() ?? '';
    return lines;
  }

  /** Waits until the watch is up. */
  async opened(path: string, signal: AbortSignal): Promise<string[]> {
    for (;;) {
      const lines = await this.read(WAIT_MS, signal);
      const first = lines?.[0];
      if (first === '-') return lines?.slice(1) ?? [];
      if (first === '!missing') throw new RpcError('not_found', `path not found: ${path}`);
      if (first === '!file') throw new RpcError('invalid_argument', `path is not a directory: ${path}`);
      if (lines === null || first !== undefined) {
        throw new RpcError(
          'internal',
          `the folder cannot be watched${first === undefined ? '' : `: ${first.slice(1)}`}`,
        );
      }
    }
  }
}

function eventsOf(lines: string[]): FilesystemEvent[] {
  return lines.flatMap((line) => {
    const [kind = '', hex = ''] = line.split(' ');
    const type = TYPES[kind];
    return type === undefined ? [] : [{ name: Buffer.from(hex, 'hex').toString(), type }];
  });
}

/** Watches of folders: as a stream, or as a watcher that is asked from time to time. */
export class Watchers {
  private readonly deps: E2bDeps;
  /** What a watcher was told already; a server that was restarted tells its events once more. */
  private readonly readers = new Map<string, WatchReader>();

  constructor(deps: E2bDeps) {
    this.deps = deps;
  }

  async watch(...[context, message, stream]: Parameters<StreamHandler>): Promise<void> {
    const { live, signal, keepaliveMs, timeoutMs } = context;
    const { path, recursive } = parseMessage(watchRequest, message);
    const execId = STREAM_PREFIX + randomUUID();
    const lastsMs = Math.min(timeoutMs ?? LIMITS.e2bCommandMs, LIMITS.e2bCommandMs);
    try {
      const reader = await this.start(live, execId, resolvePath(path), recursive, lastsMs + CALL_MS);
      let lines: string[] | null = await reader.opened(path, signal);
      await stream.send({ start: {} });
      const deadlineMs = Date.now() + lastsMs;
      let toldMs = Date.now();
      while (lines !== null && !signal.aborted) {
        for (const event of eventsOf(lines)) {
          await stream.send({ filesystem: event });
          toldMs = Date.now();
        }
        const waitMs = Math.max(0, Math.min(WAIT_MS, keepaliveMs, deadlineMs - Date.now()));
        lines = await reader.read(waitMs, signal);
        if (Date.now() >= deadlineMs) throw new RpcError('deadline_exceeded', 'the time for this call is over');
        if (Date.now() - toldMs >= keepaliveMs) {
          await stream.send({ keepalive: {} });
          toldMs = Date.now();
        }
      }
    } finally {
      await this.deps.provider.execKill(live.ref, execId, AbortSignal.timeout(CALL_MS)).catch(() => undefined);
    }
  }

  async create(...[{ live }, message]: Parameters<UnaryHandler>): Promise<object> {
    const { path, recursive } = parseMessage(watchRequest, message);
    await this.makeRoom(live);
    const watcherId = randomUUID();
    const execId = WATCHER_PREFIX + watcherId;
    const reader = await this.start(live, execId, resolvePath(path), recursive, LIMITS.e2bCommandMs);
    await reader.opened(path, AbortSignal.timeout(CALL_MS));
    // Read again from the start when asked: nothing between is lost.
    return { watcherId };
  }

  async events(...[context, message]: Parameters<UnaryHandler>): Promise<object> {
    const { watcherId } = parseMessage(watcherRequest, message);
    const reader = await this.readerOf(context, watcherId);
    const events: FilesystemEvent[] = [];
    for (;;) {
      const lines = await reader.read(0, AbortSignal.timeout(CALL_MS));
      if (lines === null || lines.length === 0) return { events };
      events.push(...eventsOf(lines));
    }
  }

  async remove(...[{ live }, message]: Parameters<UnaryHandler>): Promise<object> {
    const { watcherId } = parseMessage(watcherRequest, message);
    this.readers.delete(watcherId);
    await this.deps.provider.execKill(live.ref, WATCHER_PREFIX + watcherId, AbortSignal.timeout(CALL_MS));
    return {};
  }

  private async readerOf({ live }: RpcContext, watcherId: string): Promise<WatchReader> {
    const known = this.readers.get(watcherId);
    if (known !== undefined) return known;
    const execId = WATCHER_PREFIX + watcherId;
    const signal = AbortSignal.timeout(CALL_MS);
    const { status } = await this.deps.provider.execPoll(live.ref, execId, { out: 0, err: 0 }, 0, signal);
    if (status.state === 'absent') throw new RpcError('not_found', `watcher ${watcherId} not found`);
    const reader = new WatchReader(this.deps, live, execId);
    if (this.readers.size >= KEPT_OFFSETS) this.readers.delete(this.readers.keys().next().value ?? '');
    this.readers.set(watcherId, reader);
    return reader;
  }

  private async makeRoom(live: LiveSandbox): Promise<void> {
    const all = await this.deps.provider.execList(live.ref, 1_000, AbortSignal.timeout(CALL_MS));
    const open = all.filter(({ execId, status }) => execId.startsWith(WATCHER_PREFIX) && status.state === 'running');
    if (open.length < LIMITS.e2bWatchersPerSandbox) return;
    throw new RpcError('resource_exhausted', `${open.length} watchers are open in this sandbox already`);
  }

  private async start(
    live: LiveSandbox,
    execId: string,
    path: string,
    recursive: boolean,
    timeoutMs: number,
  ): Promise<WatchReader> {
    const argv = watchCommand(path, recursive, FOLDERS);
    const signal = AbortSignal.timeout(CALL_MS);
    await this.deps.provider.execStart(live.ref, { execId, argv, cwd: '/', timeoutMs }, signal);
    return new WatchReader(this.deps, live, execId);
  }
}

/** Ends the watches whose streams a killed server left behind. */
export async function endLeftWatches(deps: E2bDeps, live: Pick<LiveSandbox, 'ref'>): Promise<void> {
  const all = await deps.provider.execList(live.ref, 1_000, AbortSignal.timeout(CALL_MS));
  for (const { execId, status } of all) {
    if (!execId.startsWith(STREAM_PREFIX) || status.state !== 'running') continue;
    await deps.provider.execKill(live.ref, execId, AbortSignal.timeout(CALL_MS));
  }
}
