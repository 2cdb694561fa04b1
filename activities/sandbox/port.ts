/** The `SandboxProvider` port. Adapters pass test/conformance/sandbox.suite.ts and share only pure functions. */

/** Plain JSON: stored in `sandboxes.ref`, so any worker can reach the sandbox again. */
export interface SandboxRef {
  provider: string;
  id: string;
  meta: Record<string, string>;
}

export interface SandboxSpec {
  /** Owner label for `list`: one installation never reaps another's sandboxes. */
  owner: string;
  labels: Record<string, string>;
  /** Environment variables of every command; never secrets. */
  env: Record<string, string>;
  memoryBytes: number;
  diskBytes: number;
  pids: number;
  cpus: number;
  /** The sandbox is the reaper's when it was not extended for this long. */
  ttlMs: number;
}

export interface SandboxInfo {
  ref: SandboxRef;
  state: 'running' | 'paused' | 'stopped';
  owner: string;
  labels: Record<string, string>;
  createdAtMs: number;
  expiresAtMs: number;
}

/**
 * How a limit is kept. `enforced`: it cannot be exceeded. `watched`: use is looked at while commands run, and what is over
 * is killed, so a moment may exceed it. `unavailable`: not here. Never silently absent.
 */
export type LimitState = 'enforced' | 'watched' | 'unavailable';

export interface SandboxCapabilities {
  isolation: 'none' | 'weak' | 'namespace' | 'container' | 'vm';
  network: 'none' | 'domains' | 'open';
  pause: 'none' | 'filesystem' | 'memory';
  snapshot: boolean;
  limits: Record<'memory' | 'pids' | 'cpu' | 'disk' | 'output', LimitState>;
  /** What the start-up probes found, ready to print. */
  notes: string[];
}

export interface ExecSpec {
  /** Idempotency key: a second start with it attaches to the first. Matches /^[A-Za-z0-9_.-]{1,128}$/. */
  execId: string;
  argv: string[];
  /** Absolute path inside the sandbox; default /workspace. */
  cwd?: string;
  env?: Record<string, string>;
  timeoutMs: number;
  stdin?: Uint8Array;
}

/** Why a command was killed: by its time limit, a limit of the sandbox, or because somebody asked for it. */
export type KillReason = 'timeout' | 'output_limit' | 'disk_limit' | 'memory_limit' | 'signal';

export type ExecState =
  | { state: 'running' }
  | { state: 'exited'; exitCode: number; signal: string | null }
  | { state: 'killed'; reason: KillReason }
  /** It had started, and nobody can say how it ended (its sandbox died). */
  | { state: 'lost' }
  /** This id was never started in this sandbox. */
  | { state: 'absent' };

export interface ExecPoll {
  status: ExecState;
  stdout: Uint8Array;
  stderr: Uint8Array;
  /** Offsets to poll from next. */
  next: { out: number; err: number };
}

export interface FileStat {
  path: string;
  type: 'file' | 'directory' | 'symlink' | 'other';
  sizeBytes: number;
  mtimeMs: number;
}

/**
 * Every call may be repeated. Errors are `LonghaulError` with `sandbox_unavailable` (try again), `sandbox_not_found`,
 * `sandbox_lost` or `sandbox_invalid`.
 */
export interface SandboxProvider {
  readonly name: string;
  capabilities(): Promise<SandboxCapabilities>;
  /** Idempotent on `key`: the same key gives the same sandbox, also after a crash in the middle. */
  create(spec: SandboxSpec, key: string, signal: AbortSignal): Promise<SandboxRef>;
  /** null when it is gone (never throws for that). A sandbox whose processes died is `stopped`. */
  get(ref: SandboxRef, signal: AbortSignal): Promise<SandboxInfo | null>;
  list(owner: string, signal: AbortSignal): AsyncIterable<SandboxInfo>;
  /** Pushes the lease out to now + ttlMs. */
  extend(ref: SandboxRef, ttlMs: number, signal: AbortSignal): Promise<void>;
  /** Stops all processes, keeps the files. False when there was nothing to pause. */
  pause(ref: SandboxRef, signal: AbortSignal): Promise<boolean>;
  /** Makes a paused or stopped sandbox run again with its files; running commands of before are gone. */
  resume(ref: SandboxRef, signal: AbortSignal): Promise<boolean>;
  /** Kills the whole process tree and removes the files. False when it was gone already. */
  destroy(ref: SandboxRef, signal: AbortSignal): Promise<boolean>;
  /** Starts a command that outlives this process. At most one start ever happens per execId. */
  execStart(ref: SandboxRef, spec: ExecSpec, signal: AbortSignal): Promise<void>;
  /** Waits up to `waitMs` for output past `from` or the end. */
  execPoll(
    ref: SandboxRef,
    execId: string,
    from: { out: number; err: number },
    waitMs: number,
    signal: AbortSignal,
  ): Promise<ExecPoll>;
  /** Kills the command's whole process tree. An id that was not started yet never will be. */
  execKill(ref: SandboxRef, execId: string, signal: AbortSignal): Promise<void>;
  /** `maxBytes` bounds the read; a symlink is followed inside the sandbox only. */
  readFile(ref: SandboxRef, path: string, maxBytes: number, signal: AbortSignal): Promise<Uint8Array>;
  /** Atomic: the old or the new content, never a part; makes parent directories. */
  writeFile(ref: SandboxRef, path: string, content: Uint8Array, signal: AbortSignal): Promise<void>;
  stat(ref: SandboxRef, path: string, signal: AbortSignal): Promise<FileStat | null>;
  listDir(ref: SandboxRef, path: string, signal: AbortSignal): Promise<FileStat[]>;
}
