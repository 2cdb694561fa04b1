import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { accessSync, constants, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import path from 'node:path';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { HARNESS_PACKAGES, type HarnessInstallName } from '../../contracts/harness-versions.ts';
import { withLock } from '../sandbox/local/lock.ts';

const INSTALL_TIMEOUT_MS = 15 * 60_000;
const PROGRESS_EVERY_MS = 15_000;

/** A harness's program as it is started. */
export interface HarnessBinary {
  /** Absolute; for a harness in JavaScript this is node. */
  path: string;
  /** Come before all others. */
  args: string[];
  version: string;
  /** Folder of the npm package itself, for harnesses that are libraries, too. */
  packageDir: string;
}

interface InstallOptions {
  installDir: string;
  /** The user's own environment: npm finds its settings and its registry there. */
  env: NodeJS.ProcessEnv;
  say: (line: string) => void;
}

/** `<installDir>/<npm name>@<version>`: another version is another folder, so nothing is changed under who runs it. */
export function installFolder(installDir: string, name: HarnessInstallName): string {
  const { package: npmName, version } = HARNESS_PACKAGES[name];
  return path.join(installDir, `${npmName}@${version}`);
}

/** The installed program, or undefined when there is none of the pinned version. */
export function harnessBinary(name: HarnessInstallName, installDir: string): HarnessBinary | undefined {
  return binaryIn(installFolder(installDir, name), name);
}

/** Like `harnessBinary`, or an error that says what to do. */
export function requireHarness(name: HarnessInstallName, installDir: string): HarnessBinary {
  const binary = harnessBinary(name, installDir);
  if (binary !== undefined) return binary;
  const { package: npmName, version } = HARNESS_PACKAGES[name];
  throw new LonghaulError(
    'harness_unavailable',
    `${npmName} ${version} is not installed where the worker runs: \`longhaul harness install ${name}\``,
  );
}

function binaryIn(folder: string, name: HarnessInstallName): HarnessBinary | undefined {
  const modules = path.join(folder, 'node_modules');
  // npm writes this file last, so a folder without it is what a killed installation left.
  if (!existsSync(path.join(modules, '.package-lock.json'))) return undefined;
  const { package: npmName, version } = HARNESS_PACKAGES[name];
  const packageDir = path.join(modules, npmName);
  const program = programOf(name, modules, packageDir);
  return program === undefined ? undefined : { ...program, version, packageDir };
}

/** The platform's own program: the package's `bin` is a stub that an install script would replace. */
function programOf(
  name: HarnessInstallName,
  modules: string,
  packageDir: string,
): { path: string; args: string[] } | undefined {
  const platform = `${process.platform}-${process.arch}`;
  const native = (files: string[]): { path: string; args: string[] } | undefined => {
    const file = files.map((each) => path.join(modules, each)).find(isExecutable);
    return file === undefined ? undefined : { path: file, args: [] };
  };
  switch (name) {
    case 'opencode': {
      const builds = hasAvx2() ? ['', '-baseline'] : ['-baseline', ''];
      const libcs = builds.flatMap((build) => [build, `${build}-musl`]);
      return native(libcs.map((suffix) => `opencode-${platform}${suffix}/bin/opencode`));
    }
    case 'claude-code':
      return native(['', '-musl'].map((suffix) => `@anthropic-ai/claude-code-${platform}${suffix}/claude`));
    case 'codex': {
      const vendor = `@openai/codex-${platform}/vendor`;
      return native(listed(path.join(modules, vendor)).map((triple) => `${vendor}/${triple}/bin/codex`));
    }
    case 'github-copilot':
      return native(
        ['linux', 'linuxmusl', 'darwin']
          .map((system) => `${system}-${process.arch}`)
          .map((built) => `@github/copilot-sdk-${built}/prebuilds/${built}/copilot-runtime`),
      );
    case 'gemini':
    case 'qwen': {
      const script = scriptOf(packageDir, name);
      return script === undefined ? undefined : { path: process.execPath, args: [script] };
    }
  }
}

function scriptOf(packageDir: string, bin: string): string | undefined {
  try {
    const manifest = JSON.parse(readFileSync(path.join(packageDir, 'package.json'), 'utf8')) as {
      bin?: Record<string, string>;
    };
    const relative = manifest.bin?.[bin];
    if (relative === undefined) return undefined;
    const script = path.join(packageDir, relative);
    return existsSync(script) ? script : undefined;
  } catch {
    return undefined;
  }
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

function listed(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

/** The usual build of OpenCode needs it; elsewhere that build would end with an illegal instruction. */
function hasAvx2(): boolean {
  if (process.platform !== 'linux' || process.arch !== 'x64') return true;
  try {
    return /^flags\s*:.*\bavx2\b/m.test(readFileSync('/proc/cpuinfo', 'utf8'));
  } catch {
    return false;
  }
}

/**
 * Installs the pinned version, once for all processes of this user. It is made aside and moved into place whole: an
 * installation that was killed is never taken for one.
 */
export async function installHarness(
  name: HarnessInstallName,
  options: InstallOptions,
): Promise<{ binary: HarnessBinary; isNew: boolean }> {
  const found = harnessBinary(name, options.installDir);
  if (found !== undefined) return { binary: found, isNew: false };
  const folder = installFolder(options.installDir, name);
  mkdirSync(path.dirname(folder), { recursive: true });
  const busy = (): LonghaulError =>
    new LonghaulError('setup_required', `Another process installs ${name} for too long`);
  const lockOptions = { waitMs: INSTALL_TIMEOUT_MS, everyMs: 200, busy };
  return await withLock(
    `${folder}.lock`,
    async () => {
      const meanwhile = harnessBinary(name, options.installDir);
      if (meanwhile !== undefined) return { binary: meanwhile, isNew: false };
      return { binary: await installAside(name, folder, options), isNew: true };
    },
    lockOptions,
  );
}

/** The lock is held: whatever lies aside was left by somebody who died. */
async function installAside(name: HarnessInstallName, folder: string, options: InstallOptions): Promise<HarnessBinary> {
  const { package: npmName, version, sizeMb } = HARNESS_PACKAGES[name];
  removeLeft(folder);
  const aside = `${folder}.new-${randomUUID()}`;
  options.say(`installing ${npmName} ${version} (about ${sizeMb} MB)`);
  try {
    await runNpm(aside, `${npmName}@${version}`, options);
    if (binaryIn(aside, name) === undefined) {
      throw new LonghaulError(
        'setup_required',
        `${npmName} ${version} has no program for ${process.platform}-${process.arch}`,
      );
    }
    // What was made by other means and is not whole.
    rmSync(folder, { recursive: true, force: true });
    renameSync(aside, folder);
  } finally {
    rmSync(aside, { recursive: true, force: true });
  }
  const binary = binaryIn(folder, name);
  if (binary === undefined) throw new LonghaulError('internal', `${name} vanished while it was installed`);
  return binary;
}

function removeLeft(folder: string): void {
  const prefix = `${path.basename(folder)}.new-`;
  for (const entry of readdirSync(path.dirname(folder))) {
    if (entry.startsWith(prefix)) rmSync(path.join(path.dirname(folder), entry), { recursive: true, force: true });
  }
}

/** Scripts of packages are not run: nothing of a package acts before a session uses it. */
async function runNpm(prefix: string, spec: string, { env, say }: InstallOptions): Promise<void> {
  mkdirSync(prefix, { recursive: true });
  const flags = ['--ignore-scripts', '--include=optional', '--no-audit', '--no-fund', '--no-update-notifier'];
  const child = spawn('npm', ['install', ...flags, '--save-exact', '--prefix', prefix, spec], {
    cwd: prefix,
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: INSTALL_TIMEOUT_MS,
    killSignal: 'SIGKILL',
  });
  let output = '';
  const collect = (chunk: Buffer): void => {
    output = (output + chunk.toString('utf8')).slice(-8_000);
  };
  child.stdout.on('data', collect);
  child.stderr.on('data', collect);
  const startedMs = Date.now();
  const timer = setInterval(
    () => say(`  still installing ${spec}, ${Math.round((Date.now() - startedMs) / 1_000)} s`),
    PROGRESS_EVERY_MS,
  );
  try {
    await new Promise<void>((resolve, reject) => {
      child.once('error', (cause) =>
        reject(new LonghaulError('setup_required', 'npm could not be started: install it', { cause })),
      );
      child.once('close', (code) => {
        if (code === 0) resolve();
        else reject(new LonghaulError('setup_required', `npm install ${spec} failed: ${output.trim().slice(-1_500)}`));
      });
    });
  } finally {
    clearInterval(timer);
  }
}
