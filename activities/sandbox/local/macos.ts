import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { SandboxManager } from '@anthropic-ai/sandbox-runtime';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import { LIMITS } from '../../../contracts/limits.ts';
import type {
  ExecInfo,
  ExecPoll,
  ExecSpec,
  FileStat,
  SandboxCapabilities,
  SandboxInfo,
  SandboxProvider,
  SandboxRef,
  SandboxSpec,
} from '../port.ts';
import { unsupported } from '../unsupported.ts';
import { requireNetwork } from './capabilities.ts';
import { killExec, pollExec } from './exec.ts';
import { CLEAN_ENV, run } from './host.ts';
import { execDir, listExecs, put } from './journal.ts';
import { withLock } from './lock.ts';
import { MACOS_FILES, MACOS_SUPERVISOR } from './macos-scripts.ts';
import type { SandboxRecord } from './record.ts';
import { pathsOf, readRecord, writeRecord } from './record.ts';
import { removeTree } from './trees.ts';

const NAME = 'local';
const FILE_MS = 20_000;
const ID = /^lh-[0-9a-f]{24}$/;
type Runtime = typeof SandboxManager;

/** One policy per process is all the runtime has; each command is given its own folders on top. */
async function loadRuntime(): Promise<Runtime> {
  const { SandboxManager: runtime } = await import('@anthropic-ai/sandbox-runtime').catch((cause: unknown) => {
    const how = 'npm install @anthropic-ai/sandbox-runtime';
    throw new LonghaulError('sandbox_unavailable', `sandboxes on macOS need a package: ${how}`, { cause });
  });
  await runtime.initialize({
    network: { allowedDomains: [], deniedDomains: [] },
    filesystem: { denyRead: ['~'], allowWrite: [], denyWrite: [] },
  });
  return runtime;
}

/**
 * Sandboxes on macOS, through Seatbelt as `@anthropic-ai/sandbox-runtime` sets it up. NOT TESTED by this project, which has
 * no such machine: it compiles against the package. Weaker than on Linux: the machine's files can be read outside of home
 * folders, there are no limits but time and output, and `/workspace` is a folder under another path.
 */
export class MacosProvider implements SandboxProvider {
  readonly name = NAME;
  private readonly rootDir: string;
  private runtime: Promise<Runtime> | undefined;

  constructor(options: { rootDir: string }) {
    this.rootDir = path.resolve(options.rootDir);
  }

  capabilities(): Promise<SandboxCapabilities> {
    return Promise.resolve({
      isolation: 'weak',
      network: 'none',
      pause: 'filesystem',
      snapshot: false,
      egress: 'none',
      secrets: 'none',
      ports: false,
      limits: {
        memory: 'unavailable',
        pids: 'unavailable',
        cpu: 'unavailable',
        disk: 'unavailable',
        output: 'enforced',
      },
      notes: ['macOS: not tested', 'Seatbelt through @anthropic-ai/sandbox-runtime', '/workspace is cwd, not a path'],
    });
  }

  async create(spec: SandboxSpec, key: string): Promise<SandboxRef> {
    if (spec.network?.type === 'broker') throw unsupported(NAME, 'reach a broker on macOS');
    requireNetwork(spec.network ?? { type: 'none' });
    for (const name of ['image', 'snapshot', 'trustBundleFile'] as const) {
      if (spec[name] !== undefined) throw unsupported(NAME, `have a ${name} on macOS`);
    }
    const id = `lh-${createHash('sha256').update(`${spec.owner}\0${key}`).digest('hex').slice(0, 24)}`;
    const { box, execs } = pathsOf(this.rootDir, id);
    for (const folder of [execs, ...['workspace', 'tmp'].map((name) => path.join(box, name))]) {
      mkdirSync(folder, { recursive: true, mode: 0o700 });
    }
    await this.locked(id, () => {
      if (readRecord(this.rootDir, id) !== undefined) return;
      const now = Date.now();
      const rest = { uid: -1, paused: false, holder: null, groups: [] };
      writeRecord(this.rootDir, { id, spec, createdAtMs: now, expiresAtMs: now + spec.ttlMs, ...rest });
    });
    return { provider: NAME, id, meta: {} };
  }

  get(ref: SandboxRef): Promise<SandboxInfo | null> {
    const record = ID.test(ref.id) ? readRecord(this.rootDir, ref.id) : undefined;
    return Promise.resolve(record === undefined ? null : infoOf(record));
  }

  async *list(owner: string): AsyncIterable<SandboxInfo> {
    if (!existsSync(this.rootDir)) return;
    for (const id of readdirSync(this.rootDir)) {
      const record = readRecord(this.rootDir, id);
      if (record?.spec.owner === owner) yield infoOf(record);
    }
  }

  async extend(ref: SandboxRef, ttlMs: number): Promise<void> {
    await this.change(ref, { expiresAtMs: Date.now() + ttlMs });
  }

  async pause(ref: SandboxRef, signal: AbortSignal, options: { keepMemory?: boolean } = {}): Promise<boolean> {
    if (options.keepMemory === true) throw unsupported(NAME, 'keep their memory over a pause on macOS');
    const record = await this.known(ref);
    if (record === undefined || record.paused) return false;
    await this.change(ref, { paused: true });
    await this.killAll(ref, signal);
    return true;
  }

  async resume(ref: SandboxRef): Promise<boolean> {
    const { paused } = this.require(ref);
    if (paused) await this.change(ref, { paused: false });
    return paused;
  }

  async destroy(ref: SandboxRef, signal: AbortSignal): Promise<boolean> {
    if ((await this.known(ref)) === undefined) return false;
    await this.change(ref, { paused: true });
    await this.killAll(ref, signal);
    await removeTree(pathsOf(this.rootDir, ref.id).dir);
    return true;
  }

  async execStart(ref: SandboxRef, spec: ExecSpec, signal: AbortSignal): Promise<void> {
    const record = this.require(ref);
    if (record.paused) throw new LonghaulError('sandbox_lost', 'the sandbox is paused');
    if (spec.stdin === 'open') throw unsupported(NAME, 'be fed input on macOS');
    const dir = execDir(this.rootDir, ref.id, spec.execId);
    if (existsSync(path.join(dir, 'claim'))) return;
    const command = await this.wrapped(ref, spec.argv, { ...spec, env: { ...record.spec.env, ...spec.env } }, signal);
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    writeFileSync(path.join(dir, 'stdin'), spec.stdin ?? '', { mode: 0o600 });
    put(dir, 'request', [String(spec.timeoutMs), String(LIMITS.execOutputBytes), command].join('\0'));
    const child = spawn('/usr/bin/perl', ['-e', MACOS_SUPERVISOR, '--', dir], {
      env: CLEAN_ENV,
      cwd: '/',
      detached: true,
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    child.unref();
    // It says nothing; its output ends when the command is under way, or was started before.
    for await (const _word of child.stdout) continue;
  }

  async execPoll(
    ref: SandboxRef,
    execId: string,
    from: { out: number; err: number },
    waitMs: number,
    signal: AbortSignal,
  ): Promise<ExecPoll> {
    this.require(ref);
    return await pollExec(execDir(this.rootDir, ref.id, execId), from, waitMs, signal);
  }

  async execKill(ref: SandboxRef, execId: string, signal: AbortSignal): Promise<void> {
    await killExec(execDir(this.rootDir, ref.id, execId), signal);
  }

  async execList(ref: SandboxRef, limit: number): Promise<ExecInfo[]> {
    this.require(ref);
    return listExecs(this.rootDir, ref.id, limit);
  }

  async readFile(ref: SandboxRef, file: string, maxBytes: number, signal: AbortSignal): Promise<Uint8Array> {
    return await this.file(ref, ['read', file, String(maxBytes)], maxBytes + 1, signal);
  }

  async writeFile(ref: SandboxRef, file: string, content: Uint8Array, signal: AbortSignal): Promise<void> {
    await this.file(ref, ['write', file, String(content.length)], 4_096, signal, content);
  }

  async stat(ref: SandboxRef, file: string, signal: AbortSignal): Promise<FileStat | null> {
    return parse(await this.file(ref, ['stat', file], 8_192, signal), () => file)[0] ?? null;
  }

  async listDir(ref: SandboxRef, file: string, signal: AbortSignal): Promise<FileStat[]> {
    const found = await this.file(ref, ['list', file], 4 * 1024 * 1024, signal);
    return parse(found, (name) => `${file.replace(/\/$/, '')}/${name}`).toSorted((a, b) => (a.path < b.path ? -1 : 1));
  }

  async remove(ref: SandboxRef, file: string, signal: AbortSignal): Promise<boolean> {
    return (await this.file(ref, ['remove', file], 64, signal)).toString() === 'removed';
  }

  readonly execInput = refusing('be fed input');
  readonly execSignal = refusing('pass signals on');
  readonly writeStream = refusing('stream files');
  readonly snapshot = refusing('be saved');
  readonly setNetwork = refusing('change their network');
  readonly openPort = refusing('open ports');
  readonly deleteSnapshot = (): Promise<boolean> => Promise.resolve(false);
  readonly egressPoint = (): Promise<null> => Promise.resolve(null);

  readStream(): AsyncIterable<Uint8Array> {
    throw unsupported(NAME, 'stream files on macOS');
  }

  async *listSnapshots(): AsyncIterable<never> {}

  private async wrapped(
    ref: SandboxRef,
    argv: string[],
    options: { cwd?: string; env?: Record<string, string> },
    signal: AbortSignal,
  ): Promise<string> {
    this.runtime ??= loadRuntime();
    const runtime = await this.runtime;
    const { box } = pathsOf(this.rootDir, ref.id);
    const variables = {
      ...CLEAN_ENV,
      HOME: this.real(ref, '/workspace'),
      TMPDIR: this.real(ref, '/tmp'),
      ...options.env,
    };
    const settings = Object.entries(variables).map(([name, value]) => `${name}=${value}`);
    const cwd = this.real(ref, options.cwd ?? '/workspace');
    const words = ['cd', cwd, '&&', 'exec', '/usr/bin/env', '-i', ...settings, ...argv];
    const line = words.map((word) => (word === '&&' ? word : quoted(word))).join(' ');
    const filesystem = { denyRead: ['~'], allowRead: [box], allowWrite: [box], denyWrite: [] };
    return runtime.wrapWithSandbox(line, '/bin/bash', { filesystem }, signal);
  }

  /** Paths of the port are those of other sandboxes; here they lie below the box. */
  private real(ref: SandboxRef, file: string): string {
    if (!file.startsWith('/') || file.includes('\0')) {
      throw new LonghaulError('sandbox_invalid', 'must be an absolute path without NUL', { field: 'path' });
    }
    const { box } = pathsOf(this.rootDir, ref.id);
    return /^\/(workspace|tmp)(\/|$)/.test(file) ? path.join(box, file) : file;
  }

  private async file(
    ref: SandboxRef,
    [operation = '', file = '', ...rest]: string[],
    maxBytes: number,
    signal: AbortSignal,
    input?: Uint8Array,
  ): Promise<Buffer> {
    if (this.require(ref).paused) throw new LonghaulError('sandbox_lost', 'the sandbox is paused');
    const argv = ['/usr/bin/perl', '-e', MACOS_FILES, '--', operation, this.real(ref, file), ...rest];
    const command = ['/bin/bash', '-c', await this.wrapped(ref, argv, {}, signal)];
    const options = { maxBytes, timeoutMs: FILE_MS, signal, ...(input !== undefined && { input }) };
    const result = await run(command, options);
    if (result.code === 0) return result.stdout;
    throw new LonghaulError('sandbox_invalid', `${file}: ${result.stderr.toString().trim().slice(0, 300)}`);
  }

  private async killAll(ref: SandboxRef, signal: AbortSignal): Promise<void> {
    const running = listExecs(this.rootDir, ref.id, LIMITS.pageSizeMax).filter(
      (each) => each.status.state === 'running',
    );
    for (const { execId } of running) await this.execKill(ref, execId, signal);
  }

  private async change(ref: SandboxRef, change: Partial<SandboxRecord>): Promise<void> {
    this.require(ref);
    await this.locked(ref.id, () => writeRecord(this.rootDir, { ...this.require(ref), ...change }));
  }

  private async known(ref: SandboxRef): Promise<SandboxRecord | undefined> {
    return ID.test(ref.id) ? readRecord(this.rootDir, ref.id) : undefined;
  }

  private require(ref: SandboxRef): SandboxRecord {
    const record = ID.test(ref.id) ? readRecord(this.rootDir, ref.id) : undefined;
    if (record === undefined) throw new LonghaulError('sandbox_not_found', `sandbox ${ref.id} does not exist`);
    return record;
  }

  private locked(id: string, work: () => void): Promise<void> {
    return withLock(pathsOf(this.rootDir, id).lock, () => Promise.resolve(work()));
  }
}

function refusing(what: string): () => Promise<never> {
  return () => Promise.reject(unsupported(NAME, `${what} on macOS`));
}

const quoted = (word: string): string => `'${word.replaceAll("'", "'\\''")}'`;

function parse(found: Buffer, pathOf: (name: string) => string): FileStat[] {
  const fields = found.toString().split('\0');
  const all: FileStat[] = [];
  for (let at = 0; at + 3 < fields.length; at += 4) {
    const [name = '', type = 'other', size, mtime] = fields.slice(at, at + 4);
    all.push({ path: pathOf(name), type: type as FileStat['type'], sizeBytes: Number(size), mtimeMs: Number(mtime) });
  }
  return all;
}

function infoOf(record: SandboxRecord): SandboxInfo {
  return {
    ref: { provider: NAME, id: record.id, meta: {} },
    state: record.paused ? 'paused' : 'running',
    owner: record.spec.owner,
    labels: record.spec.labels,
    createdAtMs: record.createdAtMs,
    expiresAtMs: record.expiresAtMs,
  };
}
