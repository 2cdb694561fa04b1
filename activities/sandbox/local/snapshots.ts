import { createHash, randomUUID } from 'node:crypto';
import { spawn } from 'node:child_process';
import {
  closeSync,
  existsSync,
  fdatasyncSync,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { once } from 'node:events';
import path from 'node:path';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import { LIMITS } from '../../../contracts/limits.ts';
import type { SnapshotInfo, SnapshotRef } from '../port.ts';
import { hostScripts, rootArguments } from './enter.ts';
import { CLEAN_ENV, perlMissing } from './host.ts';
import type { SandboxRecord } from './record.ts';
import { pathsOf } from './record.ts';

const ID = /^lhs-[0-9a-f]{32}$/;
const FOLDER = 'snapshots';
/** What nobody finished for this long is nobody's. */
const STRAY_MS = 6 * 3_600_000;
/** Headers and padding of the archive beside the files themselves. */
const SLACK_BYTES = 64 * 1024 * 1024;

/** The commit of a snapshot: the archive is whole when this is there. */
interface SnapshotRecord {
  id: string;
  owner: string;
  createdAtMs: number;
  sizeBytes: number;
  /** File name of the archive: each try has its own, so that two savers cannot mix theirs. */
  archive: string;
}

function folderOf(rootDir: string): string {
  return path.join(rootDir, FOLDER);
}

function recordFile(rootDir: string, id: string): string {
  if (!ID.test(id)) throw new LonghaulError('sandbox_invalid', 'is no local snapshot', { field: 'snapshot' });
  return path.join(folderOf(rootDir), `${id}.json`);
}

function read(rootDir: string, id: string): SnapshotRecord | undefined {
  const file = recordFile(rootDir, id);
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as SnapshotRecord;
  } catch {
    return undefined;
  }
}

function refOf(record: SnapshotRecord): SnapshotRef {
  return { provider: 'local', id: record.id, sizeBytes: record.sizeBytes, meta: {} };
}

/** Runs tar over the sandbox's folders, whether it runs or not. */
async function tar(
  rootDir: string,
  sandbox: SandboxRecord,
  args: string[],
  stdio: { input: number | 'ignore'; output: number | 'ignore' },
  signal: AbortSignal,
): Promise<void> {
  const sizeBytes = sandbox.spec.diskBytes + SLACK_BYTES;
  const box = pathsOf(rootDir, sandbox.id).box;
  const identity = [String(process.pid), String(sandbox.uid), box, String(sizeBytes)];
  const child = spawn('perl', ['-e', hostScripts().pack, '--', ...identity, ...args, '--', ...rootArguments()], {
    env: CLEAN_ENV,
    cwd: '/',
    stdio: [stdio.input, stdio.output, 'pipe'],
    signal,
    killSignal: 'SIGKILL',
    timeout: LIMITS.sandboxSnapshotMs,
  });
  let complaint = '';
  child.stderr?.on('data', (chunk: Buffer) => (complaint = `${complaint}${chunk.toString()}`.slice(-2_000)));
  const failed = once(child, 'error').then(([error]) => {
    throw signal.aborted ? (signal.reason as Error) : perlMissing(error as Error);
  });
  failed.catch(() => undefined);
  const [code] = (await Promise.race([once(child, 'close'), failed])) as [number | null];
  // 1: a file changed while it was read, which is the business of whoever changes it.
  if (code === 0 || code === 1) return;
  if (/File too large/.test(complaint)) {
    throw new LonghaulError('sandbox_quota', `the files are more than ${sandbox.spec.diskBytes} bytes`);
  }
  const reason = complaint.trim().split('\n')[0] ?? '';
  throw new LonghaulError('sandbox_unavailable', `tar ended with ${code ?? 'a signal'}: ${reason.slice(0, 300)}`);
}

/** Saves the files. The first one to finish under a key decides what it holds. */
export async function saveSnapshot(
  rootDir: string,
  sandbox: SandboxRecord,
  key: string,
  signal: AbortSignal,
): Promise<SnapshotRef> {
  const { owner } = sandbox.spec;
  const digest = createHash('sha256').update(`${owner}\0${sandbox.id}\0${key}`).digest('hex');
  const id = `lhs-${digest.slice(0, 32)}`;
  const known = read(rootDir, id);
  if (known !== undefined) return refOf(known);
  const folder = folderOf(rootDir);
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  requireRoom(folder);
  const archive = `${id}.${randomUUID()}.tar`;
  const file = path.join(folder, archive);
  const output = openSync(file, 'wx', 0o600);
  let isKept = false;
  try {
    const args = ['--create', '--file=-', '--sparse', '--numeric-owner', '--warning=none', 'workspace', 'session'];
    await tar(rootDir, sandbox, args, { input: 'ignore', output }, signal);
    fdatasyncSync(output);
    const made = { id, owner, createdAtMs: Date.now(), sizeBytes: statSync(file).size, archive };
    const winner = commit(rootDir, made);
    isKept = winner.archive === archive;
    return refOf(winner);
  } finally {
    closeSync(output);
    if (!isKept) rmSync(file, { force: true });
  }
}

/** A record appears whole or not at all, and never replaces another. */
function commit(rootDir: string, record: SnapshotRecord): SnapshotRecord {
  const file = recordFile(rootDir, record.id);
  const temporary = `${file}.${randomUUID()}`;
  writeFileSync(temporary, JSON.stringify(record), { mode: 0o600 });
  try {
    linkSync(temporary, file);
    return record;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    const winner = read(rootDir, record.id);
    if (winner === undefined) throw new LonghaulError('sandbox_unavailable', 'the snapshot was deleted meanwhile');
    return winner;
  } finally {
    rmSync(temporary, { force: true });
  }
}

function requireRoom(folder: string): void {
  const count = readdirSync(folder).filter((name) => name.endsWith('.json')).length;
  if (count < LIMITS.sandboxSnapshots) return;
  throw new LonghaulError('sandbox_quota', `there are ${count} snapshots on this machine already`);
}

/** Fills the folders of a sandbox that does not run yet. They must be empty. */
export async function restoreSnapshot(
  rootDir: string,
  sandbox: SandboxRecord,
  snapshot: SnapshotRef,
  signal: AbortSignal,
): Promise<void> {
  const input = openArchive(rootDir, snapshot);
  try {
    const args = ['--extract', '--file=-', '--numeric-owner', '--same-permissions', '--warning=none'];
    await tar(rootDir, sandbox, args, { input, output: 'ignore' }, signal);
  } finally {
    closeSync(input);
  }
}

function openArchive(rootDir: string, snapshot: SnapshotRef): number {
  const record = read(rootDir, snapshot.id);
  try {
    return openSync(path.join(folderOf(rootDir), record?.archive ?? '-'), 'r');
  } catch (error) {
    throw new LonghaulError('sandbox_not_found', `snapshot ${snapshot.id} does not exist`, { cause: error });
  }
}

/** The record goes first: without it the archive is the next sweep's. */
export function deleteSnapshot(rootDir: string, snapshot: SnapshotRef): boolean {
  const record = read(rootDir, snapshot.id);
  if (record === undefined) return false;
  rmSync(recordFile(rootDir, snapshot.id), { force: true });
  rmSync(path.join(folderOf(rootDir), record.archive), { force: true });
  return true;
}

/** Also removes what a crash left of others. */
export function* listSnapshots(rootDir: string, owner: string): Iterable<SnapshotInfo> {
  const folder = folderOf(rootDir);
  if (!existsSync(folder)) return;
  const names = readdirSync(folder);
  const records = names.flatMap((name) => {
    const id = path.basename(name, '.json');
    return ID.test(id) && name.endsWith('.json') ? (read(rootDir, id) ?? []) : [];
  });
  sweep(folder, names, new Set(records.map((record) => record.archive)));
  for (const record of records) {
    if (record.owner === owner) yield { ref: refOf(record), owner, createdAtMs: record.createdAtMs };
  }
}

function sweep(folder: string, names: string[], archives: Set<string>): void {
  for (const name of names) {
    if (archives.has(name) || ID.test(path.basename(name, '.json'))) continue;
    const file = path.join(folder, name);
    const changedAtMs = statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? Date.now();
    if (Date.now() - changedAtMs > STRAY_MS) rmSync(file, { force: true });
  }
}
