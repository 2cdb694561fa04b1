import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { createInterface } from 'node:readline';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  lchownSync,
  lstatSync,
  mkdirSync,
  renameSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import { harnessesArgument, hostScripts, rootArguments } from './enter.ts';
import type { ProcessIdentity } from './host.ts';
import { CLEAN_ENV, killProcess, perlMissing, startTimeOf } from './host.ts';
import { syscallTable } from './kernel.ts';
import { missingCapability, obstacleOf } from './obstacles.ts';
import { seccompFilter } from './seccomp.ts';
import { heldBy } from './groups.ts';
import type { SandboxRecord } from './record.ts';
import { pathsOf } from './record.ts';

const START_MS = 15_000;
const IMAGE = /^[a-z0-9][a-z0-9._-]{0,63}$/;
const COMPLAINT_MS = 1_000;

/** Names a sandbox's processes on the host without telling where its files are. */
export function markerOf(rootDir: string, id: string): string {
  return createHash('sha256')
    .update(`${path.resolve(rootDir)}\0${id}`)
    .digest('hex')
    .slice(0, 32);
}

/** Name of the copy in the box: a path that the sandbox's uid can walk, whatever becomes of the original. */
const TRUST_FILE = 'trust.pem';

/** Folders and files a sandbox needs on disk; repeating it changes nothing. */
export function furnish(rootDir: string, record: SandboxRecord): void {
  const { box, execs, filter } = pathsOf(rootDir, record.id);
  mkdirSync(execs, { recursive: true, mode: 0o700 });
  mkdirSync(box, { recursive: true });
  // The sandbox's uid looks the two folders up in it, and may not list it.
  chmodSync(box, 0o711);
  for (const name of ['workspace', 'tmp', 'session', 'session/outputs', 'session/uploads']) {
    const folder = path.join(box, name);
    // What the sandboxed code made of its folders is its own business, be it a link to nowhere.
    if (lstatSync(folder, { throwIfNoEntry: false }) !== undefined) continue;
    mkdirSync(folder, { mode: 0o700 });
    if (record.uid >= 0) lchownSync(folder, record.uid, record.uid);
  }
  copyTrust(record, box);
  const table = syscallTable(process.arch);
  if (table === null) throw new LonghaulError('sandbox_unavailable', `no system call table for ${process.arch}`);
  writeFileSync(filter, seccompFilter(table, heldBy(record.groups)), { mode: 0o600 });
}

function copyTrust(record: SandboxRecord, box: string): void {
  const { trustBundleFile } = record.spec;
  if (trustBundleFile === undefined) return;
  const temporary = path.join(box, `${TRUST_FILE}.new`);
  try {
    copyFileSync(trustBundleFile, temporary);
  } catch (error) {
    // A sandbox that has trusted it before goes on with its copy.
    if (existsSync(path.join(box, TRUST_FILE))) return;
    throw new LonghaulError('sandbox_unavailable', 'the trust bundle cannot be read', { cause: error });
  }
  chmodSync(temporary, 0o644);
  renameSync(temporary, path.join(box, TRUST_FILE));
}

/** A root file system by its name under the folder of the operator's. */
export function rootfsOf(rootfsDir: string | undefined, image: string | undefined): string | undefined {
  if (image === undefined) return undefined;
  const folder = path.join(rootfsDir ?? '', image);
  if (rootfsDir !== undefined && IMAGE.test(image) && existsSync(path.join(folder, 'usr'))) return path.resolve(folder);
  throw new LonghaulError('sandbox_invalid', 'is no root file system of this machine', { field: 'image' });
}

/** Folders of this machine that sandboxes see, read-only. */
export interface ShownFolders {
  /** Holds root file systems, one folder each, that `spec.image` may name. */
  rootfsDir?: string | undefined;
  /** Programs of harnesses: at HARNESSES_INSIDE. */
  harnessDir?: string | undefined;
}

/**
 * Starts process 1 of the sandbox's namespaces. `onPid` must write it down: only then is it told to stay, so a starter
 * that dies in between leaves no process behind.
 */
export async function startHolder(
  rootDir: string,
  record: SandboxRecord,
  options: ShownFolders & { onPid: (holder: ProcessIdentity) => void },
): Promise<void> {
  const obstacle = missingCapability();
  if (obstacle !== null) throw new LonghaulError('sandbox_unavailable', `${obstacle.detail}. ${obstacle.fix}`);
  const { box } = pathsOf(rootDir, record.id);
  const identity = [String(record.uid), box, markerOf(rootDir, record.id), String(record.spec.memoryBytes)];
  const rootfs = rootfsOf(options.rootfsDir, record.spec.image);
  const shown = rootArguments({
    ...(rootfs !== undefined && { rootfs }),
    ...(record.spec.trustBundleFile !== undefined && { trustFile: TRUST_FILE }),
    harnesses: harnessesArgument(options.harnessDir, record.uid >= 0),
  });
  const child = spawn('perl', ['-e', hostScripts().holder, '--', ...identity, ...shown], {
    env: CLEAN_ENV,
    cwd: '/',
    detached: true,
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  child.unref();
  const failed = new Promise<never>((_resolve, reject) => {
    child.once('error', (error) => reject(perlMissing(error)));
  });
  let complaint = '';
  child.stderr.on('data', (chunk: Buffer) => (complaint += chunk.toString().slice(0, 500)));
  child.stdin.on('error', () => undefined);
  let holder: ProcessIdentity | undefined;
  let told = false;
  const timer = setTimeout(() => child.stdout.destroy(), START_MS);
  try {
    const started = firstWords(child.stdout, (pid) => {
      holder = { pid, startTime: startTimeOf(pid) ?? '' };
    });
    if (!(await Promise.race([started, failed])) || holder === undefined) {
      child.stdin.destroy();
      await Promise.race([once(child, 'close'), delay(COMPLAINT_MS)]);
      const said = complaint.trim() || 'no answer';
      const { detail, fix } = obstacleOf(said);
      throw new LonghaulError('sandbox_unavailable', `${detail} (${said}). ${fix}`);
    }
    options.onPid(holder);
    child.stdin.end('go\n');
    told = true;
  } finally {
    clearTimeout(timer);
    if (!told) child.stdin.destroy();
    if (!told && holder !== undefined) killProcess(holder, 'SIGKILL');
    child.stdout.destroy();
    child.stderr.destroy();
  }
}

/** True once both were said: the pid, by the process that stays outside, and "ready" by the one inside. */
async function firstWords(stdout: NodeJS.ReadableStream, onPid: (pid: number) => void): Promise<boolean> {
  const said = new Set<string>();
  for await (const line of createInterface({ input: stdout })) {
    const [word = '', pid] = line.split(' ');
    if (word === 'pid') onPid(Number(pid));
    said.add(word);
    if (said.has('pid') && said.has('ready')) return true;
  }
  return false;
}
