import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { EnvHttpProxyAgent, fetch } from 'undici';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { inheritedEnvironment } from '../config.ts';
import { messageOf, seconds } from '../output.ts';
import { packageRoot } from '../package-root.ts';
import { acquireLock } from './lock.ts';
import {
  cachedBinaryPath,
  serverVersionOf,
  TEMPORAL_OPTIONS,
  TEMPORAL_VERSION,
  type TemporalBinary,
} from './temporal-binary.ts';

const RELEASE_URL = `https://github.com/temporalio/cli/releases/download/v${TEMPORAL_VERSION}`;
const CLI_MODULE = 'github.com/temporalio/cli';
/** Builds as it is with `go install`, which the pinned version does not; for a Go too old for the pinned one. */
const FALLBACK_VERSION = '1.5.1';
/** A machine without a way out should notice soon, not after the system's connect timeout. */
const REACH_TIMEOUT_MS = 5_000;
const DOWNLOAD_TIMEOUT_MS = 5 * 60_000;
const BUILD_TIMEOUT_MS = 20 * 60_000;
const PROGRESS_EVERY_MS = 15_000;

type Say = (line: string) => void;

/** Runs one obtain-step with a temporary folder that is gone afterwards. */
async function inScratch<T>(cacheDir: string, work: (folder: string) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(path.join(cacheDir, 'temporal', 'new-'));
  try {
    return await work(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function archiveName(): string {
  const arch = process.arch === 'x64' ? 'amd64' : process.arch;
  return `temporal_cli_${TEMPORAL_VERSION}_${process.platform}_${arch}.tar.gz`;
}

/** The official release, checked against its list of checksums. */
async function download(folder: string, say: Say): Promise<string> {
  const dispatcher = new EnvHttpProxyAgent();
  const name = archiveName();
  const list = await fetch(`${RELEASE_URL}/checksums.txt`, {
    dispatcher,
    signal: AbortSignal.timeout(REACH_TIMEOUT_MS),
  });
  if (!list.ok) throw new LonghaulError('setup_required', `${RELEASE_URL}/checksums.txt answered ${list.status}`);
  const expected = (await list.text())
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
    .find(([, file]) => file === name)?.[0];
  if (expected === undefined) throw new LonghaulError('setup_required', `The release has no ${name}`);
  say(`downloading ${name}`);
  const response = await fetch(`${RELEASE_URL}/${name}`, {
    dispatcher,
    signal: AbortSignal.timeout(DOWNLOAD_TIMEOUT_MS),
  });
  if (!response.ok) throw new LonghaulError('setup_required', `${RELEASE_URL}/${name} answered ${response.status}`);
  const content = Buffer.from(await response.arrayBuffer());
  const actual = createHash('sha256').update(content).digest('hex');
  if (actual !== expected) {
    throw new LonghaulError('setup_required', `${name} has SHA-256 ${actual}, its release says ${expected}: not used`);
  }
  const archive = path.join(folder, name);
  writeFileSync(archive, content);
  const unpacked = spawnSync('tar', ['-xzf', archive, '-C', folder, 'temporal'], { encoding: 'utf8' });
  if (unpacked.status !== 0) throw new LonghaulError('setup_required', `tar failed: ${unpacked.stderr}`);
  return path.join(folder, 'temporal');
}

/** Runs go, with a sign of life while it is silent for minutes. */
async function runGo(args: string[], cwd: string, env: Record<string, string>, say: Say): Promise<void> {
  const startedMs = Date.now();
  const child = spawn('go', args, {
    cwd,
    env: { ...inheritedEnvironment(), CGO_ENABLED: '0', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: BUILD_TIMEOUT_MS,
    killSignal: 'SIGKILL',
  });
  let output = '';
  const collect = (chunk: Buffer): void => {
    output = (output + chunk.toString('utf8')).slice(-8_000);
  };
  child.stdout.on('data', collect);
  child.stderr.on('data', collect);
  const timer = setInterval(() => say(`  still building, ${seconds(Date.now() - startedMs)}`), PROGRESS_EVERY_MS);
  try {
    await new Promise<void>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (code) => {
        if (code === 0) resolve();
        else reject(new LonghaulError('setup_required', `go ${args[0]} failed: ${output.trim().slice(-1_500)}`));
      });
    });
  } finally {
    clearInterval(timer);
  }
}

function hasGo(): boolean {
  return spawnSync('go', ['version'], { stdio: 'ignore' }).status === 0;
}

/** Builds the pinned version from our own module, whose go.sum fixes every byte. */
async function build(folder: string, say: Say): Promise<string> {
  if (!hasGo()) throw new LonghaulError('setup_required', 'Go is not installed');
  const source = path.join(packageRoot(), 'deploy', 'temporal');
  const module = path.join(folder, 'module');
  mkdirSync(module);
  // A copy: go may want to write beside go.mod, and the package may be read-only.
  for (const file of ['go.mod', 'go.sum']) copyFileSync(path.join(source, file), path.join(module, file));
  say(`building the Temporal server ${TEMPORAL_VERSION} with Go: about 3 to 5 minutes, once for this user`);
  const target = path.join(folder, 'temporal');
  const ldflags = `-s -w -X ${CLI_MODULE}/internal/temporalcli.Version=${TEMPORAL_VERSION}`;
  await runGo(
    ['build', '-trimpath', `-ldflags=${ldflags}`, '-o', target, `${CLI_MODULE}/cmd/temporal`],
    module,
    {},
    say,
  );
  return target;
}

/** An older version that an older Go builds as well. */
async function install(folder: string, say: Say): Promise<string> {
  if (!hasGo()) throw new LonghaulError('setup_required', 'Go is not installed');
  say(`building the older Temporal server ${FALLBACK_VERSION} with Go`);
  const flags = ['install', '-trimpath', '-ldflags=-s -w', `${CLI_MODULE}/cmd/temporal@v${FALLBACK_VERSION}`];
  await runGo(flags, folder, { GOBIN: folder }, say);
  return path.join(folder, 'temporal');
}

const WAYS = [
  { source: 'download', get: download },
  { source: 'go build', get: build },
  { source: 'go install', get: install },
] as const;

/** Puts the Temporal server into the user's cache by the first way that works. */
export async function obtainTemporal(cacheDir: string, say: Say): Promise<TemporalBinary> {
  const target = cachedBinaryPath(cacheDir);
  mkdirSync(path.dirname(target), { recursive: true });
  const lock = await waitForLock(`${target}.lock`, say);
  try {
    const already = existsSync(target) ? await serverVersionOf(target) : null;
    if (already !== null) return { path: target, serverVersion: already, source: 'cache' };
    const failures: string[] = [];
    for (const way of WAYS) {
      try {
        return await inScratch(cacheDir, async (folder) => {
          const file = await way.get(folder, say);
          chmodSync(file, 0o755);
          const serverVersion = await serverVersionOf(file);
          if (serverVersion === null) throw new LonghaulError('setup_required', 'the program made does not run here');
          renameSync(file, target);
          return { path: target, serverVersion, source: way.source };
        });
      } catch (error) {
        failures.push(`  ${way.source}: ${reasonOf(error)}`);
        say(`${way.source} did not work: ${reasonOf(error)}`);
      }
    }
    throw new LonghaulError('setup_required', `No Temporal server.\n${failures.join('\n')}\n${TEMPORAL_OPTIONS}`);
  } finally {
    lock.release();
  }
}

/** `fetch failed` says nothing; its cause does. */
function reasonOf(error: unknown): string {
  if (error instanceof Error && error.cause instanceof Error) return `${error.message}: ${error.cause.message}`;
  return messageOf(error);
}

async function waitForLock(file: string, say: Say): Promise<{ release(): void }> {
  const startedMs = Date.now();
  let told = false;
  while (Date.now() - startedMs < BUILD_TIMEOUT_MS) {
    const lock = acquireLock(file);
    if (lock !== null) return lock;
    if (!told) say('another process is getting the Temporal server: waiting for it');
    told = true;
    await delay(500);
  }
  throw new LonghaulError('setup_required', `Another process holds ${file} for too long`);
}
