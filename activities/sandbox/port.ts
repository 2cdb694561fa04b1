import type { Duplex } from 'node:stream';

/** The `SandboxProvider` port. Adapters pass test/conformance/sandbox.suite.ts and share only pure functions. */

/** Plain JSON: stored in `sandboxes.ref`, so any worker can reach the sandbox again. */
export interface SandboxRef {
  provider: string;
  id: string;
  meta: Record<string, string>;
}

/**
 * What a sandbox may reach. `none`: nothing. `broker`: only the egress broker, through a listener in the sandbox's own
 * network (`egressPoint`) or, where there is none, at `proxy`. `native`: what the provider's own filter lets through.
 */
export type SandboxNetwork =
  | { type: 'none' }
  | { type: 'broker'; proxy: { host: string; port: number } | null }
  | { type: 'native'; allowedHosts: string[] }
  | { type: 'open' };

/** A saved file system of a sandbox. Plain JSON: stored, so that any worker can start from it. */
export interface SnapshotRef {
  provider: string;
  id: string;
  sizeBytes: number;
  meta: Record<string, string>;
}

export interface SnapshotInfo {
  ref: SnapshotRef;
  owner: string;
  createdAtMs: number;
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
  /** Absent: `none`. */
  network?: SandboxNetwork;
  /** A container image or a template of the provider; absent: the provider's default. */
  image?: string;
  /** Files to start from. */
  snapshot?: SnapshotRef;
  /** PEM bundle on the worker's machine: the certificate authorities programs inside trust instead of the system's. */
  trustBundleFile?: string;
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
  /** `listener`: the broker listens inside the sandbox's network; else what the provider's own filter tells apart. */
  egress: 'listener' | 'domains' | 'addresses' | 'none';
  /** The provider can put secrets into requests by itself. */
  secrets: 'none' | 'native';
  /** `openPort` works. */
  ports: boolean;
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
  /** The whole input, or `open`: it comes by `execInput`. Absent: none. */
  stdin?: Uint8Array | 'open';
}

/** One command of a sandbox's journal. */
export interface ExecInfo {
  execId: string;
  status: ExecState;
}

export type ExecSignal = 'SIGINT' | 'SIGTERM' | 'SIGHUP' | 'SIGQUIT' | 'SIGUSR1' | 'SIGUSR2' | 'SIGKILL';

/** Where the broker may listen for one sandbox: the network namespace of a process on the worker's machine. */
export interface EgressPoint {
  type: 'namespace';
  /** Process that holds the namespace, with its start time (field 22 of /proc/<pid>/stat): a reused pid is refused. */
  pid: number;
  startTime: string;
}

/** How to reach a port a program of the sandbox listens on. */
export type PortTarget =
  { type: 'stream'; connect(): Promise<Duplex> } | { type: 'url'; url: string; headers: Record<string, string> };

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
 * Every call may be repeated. Errors are `LonghaulError` with `sandbox_unavailable` or `sandbox_busy` (try again),
 * `sandbox_not_found`, `sandbox_lost`, `sandbox_quota`, `sandbox_auth`, `sandbox_invalid` or `sandbox_unsupported`.
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
  /**
   * Keeps the files and stops all processes; with `keepMemory` it freezes them, where `capabilities().pause` is `memory`.
   * False when there was nothing to pause.
   */
  pause(ref: SandboxRef, signal: AbortSignal, options?: { keepMemory?: boolean }): Promise<boolean>;
  /** Makes a paused or stopped sandbox run again with its files; commands go on only where memory was kept. */
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
  /**
   * Feeds a command that was started with `stdin: 'open'`. `offset` is where `data` stands in the whole input: what came
   * before is not fed twice. `null` ends the input. Returns the offset of the next byte.
   */
  execInput(
    ref: SandboxRef,
    execId: string,
    offset: number,
    data: Uint8Array | null,
    signal: AbortSignal,
  ): Promise<number>;
  /** To every process of the command. False when it does not run. */
  execSignal(ref: SandboxRef, execId: string, name: ExecSignal, signal: AbortSignal): Promise<boolean>;
  /** The commands of the journal, newest first, at most `limit`. */
  execList(ref: SandboxRef, limit: number, signal: AbortSignal): Promise<ExecInfo[]>;
  /** `maxBytes` bounds the read; a symlink is followed inside the sandbox only. */
  readFile(ref: SandboxRef, path: string, maxBytes: number, signal: AbortSignal): Promise<Uint8Array>;
  /** Atomic: the old or the new content, never a part; makes parent directories. */
  writeFile(ref: SandboxRef, path: string, content: Uint8Array, signal: AbortSignal): Promise<void>;
  stat(ref: SandboxRef, path: string, signal: AbortSignal): Promise<FileStat | null>;
  listDir(ref: SandboxRef, path: string, signal: AbortSignal): Promise<FileStat[]>;
  /** A file of any size, in pieces. */
  readStream(ref: SandboxRef, path: string, signal: AbortSignal): AsyncIterable<Uint8Array>;
  /** As `writeFile`, in pieces: a stream that breaks off leaves the old content. Returns the bytes written. */
  writeStream(ref: SandboxRef, path: string, content: AsyncIterable<Uint8Array>, signal: AbortSignal): Promise<number>;
  /** A file, or a folder with what is in it. False when there was none. */
  remove(ref: SandboxRef, path: string, signal: AbortSignal): Promise<boolean>;
  /** Saves /workspace and what else the provider keeps. Idempotent on `key`. */
  snapshot(ref: SandboxRef, key: string, signal: AbortSignal): Promise<SnapshotRef>;
  /** False when it was gone already. */
  deleteSnapshot(snapshot: SnapshotRef, signal: AbortSignal): Promise<boolean>;
  listSnapshots(owner: string, signal: AbortSignal): AsyncIterable<SnapshotInfo>;
  /** Replaces what the sandbox may reach. `sandbox_unsupported` where it is fixed at creation. */
  setNetwork(ref: SandboxRef, network: SandboxNetwork, signal: AbortSignal): Promise<void>;
  /** null where the broker cannot listen inside. */
  egressPoint(ref: SandboxRef, signal: AbortSignal): Promise<EgressPoint | null>;
  openPort(ref: SandboxRef, port: number, signal: AbortSignal): Promise<PortTarget>;
}
