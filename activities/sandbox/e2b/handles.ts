import type { Sandbox } from 'e2b';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import { Journal } from '../journal/index.ts';
import type { ExecInfo, ExecPoll, SandboxRef } from '../port.ts';
import { toPortError } from './errors.ts';
import { Inside, quote } from './inside.ts';
import { settingsOf, type Settings } from './metadata.ts';
import { connection, loadSdk, type E2bOptions } from './sdk.ts';

const KEPT = 1_000;
const CALL_MS = 60_000;
const LISTED = 10_000;

/** The connection to a running sandbox. */
export interface Handle {
  inside: Inside;
  journal: Journal;
  starts: number;
}

/** How a sandbox's commands stood when this process paused it: nothing can be asked of a paused one. */
interface Frozen {
  keepMemory: boolean;
  commands: ExecInfo[];
}

/**
 * Connections to running sandboxes, made again from the id alone. The sandbox itself says where its journal is: a folder
 * that outlasts a boot where there is one, and named after the sandbox, so that one made from a snapshot has its own.
 */
export class Handles {
  private readonly options: E2bOptions;
  private readonly open = new Map<string, Promise<Handle>>();
  private readonly frozen = new Map<string, Frozen>();

  constructor(options: E2bOptions) {
    this.options = options;
  }

  /** Does `work` with the sandbox; an error then says whether it is gone, paused or cannot be reached. */
  async with<T>(ref: SandboxRef, signal: AbortSignal, work: (handle: Handle) => Promise<T>): Promise<T> {
    signal.throwIfAborted();
    try {
      return await work(await this.of(ref));
    } catch (error) {
      throw await this.explain(ref, error, signal);
    }
  }

  forget(id: string): void {
    this.open.delete(id);
  }

  freeze(id: string, frozen: Frozen): void {
    this.forget(id);
    if (this.frozen.size >= KEPT) this.frozen.delete(this.frozen.keys().next().value ?? '');
    this.frozen.set(id, frozen);
  }

  thaw(id: string): void {
    this.frozen.delete(id);
  }

  /** What is known of a command of a sandbox this process paused. */
  pollFrozen(id: string, execId: string, from: { out: number; err: number }): ExecPoll | undefined {
    const known = this.frozen.get(id);
    if (known === undefined) return undefined;
    const status = known.commands.find((each) => each.execId === execId)?.status ?? { state: 'absent' as const };
    const isLost = status.state === 'running' && !known.keepMemory;
    const none = new Uint8Array(0);
    return { status: isLost ? { state: 'lost' } : status, stdout: none, stderr: none, next: from };
  }

  /** As the sandbox's journal has them just now. */
  async commands(ref: SandboxRef, signal: AbortSignal): Promise<ExecInfo[]> {
    return this.with(ref, signal, ({ journal }) => journal.list(LISTED, signal));
  }

  private of(ref: SandboxRef): Promise<Handle> {
    const known = this.open.get(ref.id);
    if (known !== undefined) return known;
    if (this.open.size >= KEPT) this.open.delete(this.open.keys().next().value ?? '');
    const opening = this.connect(ref.id);
    this.open.set(ref.id, opening);
    opening.catch(() => this.open.get(ref.id) === opening && this.open.delete(ref.id));
    return opening;
  }

  /** Not by a connect alone: that would wake a paused one. */
  private async connect(id: string): Promise<Handle> {
    const sdk = await loadSdk(this.options);
    const info = await sdk.Sandbox.getInfo(id, connection(this.options));
    if (info.state === 'paused') throw new LonghaulError('sandbox_lost', `sandbox ${id} is paused`);
    // The shortest time: a connect only ever makes it longer.
    const sandbox = await sdk.Sandbox.connect(id, { ...connection(this.options), timeoutMs: 1_000 });
    return openHandle(sandbox, settingsOf(info.metadata));
  }

  private async explain(ref: SandboxRef, error: unknown, signal: AbortSignal): Promise<unknown> {
    const known = toPortError(error, signal);
    if (!(known instanceof LonghaulError)) return known;
    if (!['sandbox_unavailable', 'sandbox_not_found', 'sandbox_lost'].includes(known.code)) return known;
    this.forget(ref.id);
    try {
      const sdk = await loadSdk(this.options);
      const { state } = await sdk.Sandbox.getInfo(ref.id, connection(this.options));
      if (state === 'paused') return new LonghaulError('sandbox_lost', `sandbox ${ref.id} is paused`);
      if (known.code === 'sandbox_unavailable') return known;
      return new LonghaulError('sandbox_unavailable', known.message, { cause: error });
    } catch (unreached) {
      const reason = toPortError(unreached, signal);
      const isGone = reason instanceof LonghaulError && reason.code === 'sandbox_not_found';
      return isGone ? new LonghaulError('sandbox_not_found', `sandbox ${ref.id} does not exist`) : known;
    }
  }
}

/** Makes the folders commands need, and finds where the journal is. */
async function openHandle(sandbox: Sandbox, settings: Settings): Promise<Handle> {
  const id = quote(sandbox.sandboxId);
  const line = `for root in /var/lib/longhaul /tmp/.longhaul; do
mkdir -p -m 700 "$root/"${id} 2>/dev/null && [ -w "$root/"${id} ] && echo "root $root/"${id} && break
done; mkdir -p /workspace`;
  const said = await sandbox.commands.run(line, { user: 'root', cwd: '/', timeoutMs: CALL_MS });
  const root = /^root (\/\S+)$/m.exec(said.stdout)?.[1];
  if (root === undefined) throw new LonghaulError('sandbox_unavailable', 'the sandbox has no place for a journal');
  const inside = new Inside(sandbox, root);
  // The journal's own files are no command's.
  const folders = root.startsWith('/tmp/') ? ['/workspace'] : ['/workspace', '/tmp'];
  const disk = settings.diskBytes > 0 ? { disk: { limitBytes: settings.diskBytes, folders } } : {};
  const journal = new Journal({ transport: inside, root, framing: 'text', env: settings.env, ...disk });
  return { inside, journal, starts: 0 };
}
