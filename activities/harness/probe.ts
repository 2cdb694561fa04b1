import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { HARNESS_PACKAGES, type HarnessInstallName } from '../../contracts/harness-versions.ts';
import { harnessBinary, installFolder } from './installs.ts';

/** A busy machine starts these programs slowly. */
const START_TIMEOUT_MS = 90_000;

export interface HarnessProbe {
  name: HarnessInstallName;
  harness: string;
  /** The pinned version, installed or not. */
  version: string;
  isInstalled: boolean;
  folder: string;
  /** What its program said of itself; null when it did not start. */
  starts: string | null;
  problem: string | null;
}

/** Looks whether a harness is installed and starts it once. */
export async function probeHarness(name: HarnessInstallName, installDir: string): Promise<HarnessProbe> {
  const { harness, version } = HARNESS_PACKAGES[name];
  const binary = harnessBinary(name, installDir);
  const known = { name, harness, version, folder: installFolder(installDir, name), isInstalled: binary !== undefined };
  if (binary === undefined) return { ...known, starts: null, problem: 'not installed' };
  const { code, output } = await startOnce(binary.path, [...binary.args, ...firstArgs(name)]);
  const said = output.trim().split('\n').at(-1)?.slice(0, 200) ?? '';
  if (code === 0) return { ...known, starts: said, problem: null };
  return { ...known, starts: null, problem: `it does not start: ${said === '' ? `exit code ${code}` : said}` };
}

/** Makes the program start and end. */
function firstArgs(name: HarnessInstallName): string[] {
  // Copilot's runtime does not tell its version: it serves until its input ends, which is at once.
  if (name === 'github-copilot') return ['--headless', '--stdio', '--no-auto-update', '--no-auto-login'];
  return ['--version'];
}

async function startOnce(file: string, args: string[]): Promise<{ code: number | null; output: string }> {
  // These programs write into the home of whoever starts them.
  const home = mkdtempSync(path.join(os.tmpdir(), 'longhaul-harness-'));
  try {
    const child = spawn(file, args, {
      cwd: home,
      env: { HOME: home, PATH: '/usr/local/bin:/usr/bin:/bin', LC_ALL: 'C' },
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: START_TIMEOUT_MS,
      killSignal: 'SIGKILL',
    });
    let output = '';
    const collect = (chunk: Buffer): void => {
      output = (output + chunk.toString('utf8')).slice(-4_000);
    };
    child.stdout.on('data', collect);
    child.stderr.on('data', collect);
    const code = await new Promise<number | null>((resolve) => {
      child.once('error', (error) => {
        output = error.message;
        resolve(null);
      });
      child.once('close', resolve);
    });
    return { code, output };
  } finally {
    rmSync(home, { recursive: true, force: true, maxRetries: 5 });
  }
}
