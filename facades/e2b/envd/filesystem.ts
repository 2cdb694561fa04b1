import { posix } from 'node:path';
import { z } from 'zod';
import { LIMITS } from '../../../contracts/limits.ts';
import type { E2bDeps, LiveSandbox } from '../sandboxes.ts';
import { RpcError } from './connect.ts';
import { listEntries, missing, statEntry } from './entries.ts';
import { HOME, resolvePath } from './paths.ts';
import { runInside } from './run.ts';
import type { StreamHandler, UnaryHandler } from './services.ts';
import { parseMessage } from './services.ts';
import { Watchers } from './watch.ts';

const pathRequest = z.object({ path: z.string().max(4_096).default('') });
const moveRequest = z.object({ source: z.string().max(4_096), destination: z.string().max(4_096) });
const listRequest = pathRequest.extend({ depth: z.number().int().min(0).max(LIMITS.e2bListDepth).default(1) });

/** What may be removed of a sandbox: not the folders everything else hangs on. */
const KEPT = new Set(['/', HOME, '/workspace', '/home', '/tmp']);

/** Service `filesystem.Filesystem`. All work is done inside, with the rights of the sandbox's own programs. */
export class FilesystemService {
  private readonly deps: E2bDeps;
  private readonly watchers: Watchers;

  constructor(deps: E2bDeps) {
    this.deps = deps;
    this.watchers = new Watchers(deps);
  }

  readonly unary: Record<string, UnaryHandler> = {
    Stat: (context, message) => this.stat(context, message),
    MakeDir: (context, message) => this.makeDir(context, message),
    Move: (context, message) => this.move(context, message),
    ListDir: (context, message) => this.listDir(context, message),
    Remove: (context, message) => this.remove(context, message),
    CreateWatcher: (context, message) => this.watchers.create(context, message),
    GetWatcherEvents: (context, message) => this.watchers.events(context, message),
    RemoveWatcher: (context, message) => this.watchers.remove(context, message),
  };

  readonly streams: Record<string, StreamHandler> = {
    WatchDir: (context, message, stream) => this.watchers.watch(context, message, stream),
  };

  private async stat(...[{ live }, message]: Parameters<UnaryHandler>): Promise<object> {
    const { path } = parseMessage(pathRequest, message);
    return { entry: await statEntry(this.deps, live, resolvePath(path)) };
  }

  private async makeDir(...[{ live }, message]: Parameters<UnaryHandler>): Promise<object> {
    const path = resolvePath(parseMessage(pathRequest, message).path);
    const script = '[ -d "$1" ] && exit 44; [ -e "$1" ] && exit 45; exec mkdir -p -- "$1"';
    const exitCode = await this.change(live, path, ['sh', '-c', script, 'make', path], [44, 45]);
    if (exitCode === 44) throw new RpcError('already_exists', `directory already exists: ${path}`);
    if (exitCode === 45)
      throw new RpcError('invalid_argument', `path already exists but it is not a directory: ${path}`);
    return { entry: await statEntry(this.deps, live, path) };
  }

  private async move(...[{ live }, message]: Parameters<UnaryHandler>): Promise<object> {
    const asked = parseMessage(moveRequest, message);
    const [source, destination] = [resolvePath(asked.source), resolvePath(asked.destination)];
    const script = '[ -e "$1" ] || [ -L "$1" ] || exit 44; mkdir -p -- "$3" && exec mv -fT -- "$1" "$2"';
    const argv = ['sh', '-c', script, 'move', source, destination, posix.dirname(destination)];
    if ((await this.change(live, source, argv, [44])) === 44) throw missing(source, 'No such file');
    return { entry: await statEntry(this.deps, live, destination) };
  }

  private async listDir(...[{ live }, message]: Parameters<UnaryHandler>): Promise<object> {
    const { path, depth } = parseMessage(listRequest, message);
    const limit = LIMITS.e2bListEntries;
    return { entries: await listEntries(this.deps, live, resolvePath(path), Math.max(1, depth), limit) };
  }

  /** One that is not there counts as removed. */
  private async remove(...[{ live }, message]: Parameters<UnaryHandler>): Promise<object> {
    const path = resolvePath(parseMessage(pathRequest, message).path);
    if (KEPT.has(path)) throw new RpcError('invalid_argument', `${path} cannot be removed`);
    await this.change(live, path, ['rm', '-rf', '--', path], []);
    return {};
  }

  /** Runs a command that changes files; an exit code that is not expected is an error with what it said. */
  private async change(live: LiveSandbox, path: string, argv: string[], expected: number[]): Promise<number> {
    const { exitCode, stderr } = await runInside(this.deps, live, argv);
    if (exitCode === 0 || expected.includes(exitCode)) return exitCode;
    if (/No space left|Disk quota/.test(stderr)) throw new RpcError('resource_exhausted', 'the disk is full');
    throw missing(path, stderr);
  }
}
