import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, rmSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { makeE2bBed, type E2bBed } from '../support/e2b-server.ts';

const VERSION = '2.63.0';
const INSTALL_MS = 60_000;
const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const VENV = path.join(ROOT, 'node_modules', '.cache', `e2b-python-${VERSION}`);
const PYTHON = path.join(VENV, 'bin', 'python');
const PROGRAM = fileURLToPath(new URL('e2b-program.py', import.meta.url));

/** The reason there is no SDK for Python, or undefined. */
function install(): string | undefined {
  if (existsSync(PYTHON) && spawnSync(PYTHON, ['-c', 'import e2b']).status === 0) return undefined;
  rmSync(VENV, { recursive: true, force: true });
  try {
    execFileSync('python3', ['-m', 'venv', VENV], { timeout: INSTALL_MS, stdio: 'pipe' });
    const args = ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', `e2b==${VERSION}`];
    execFileSync(PYTHON, args, { timeout: INSTALL_MS, stdio: 'pipe' });
    return undefined;
  } catch (error) {
    rmSync(VENV, { recursive: true, force: true });
    return String((error as { stderr?: Buffer }).stderr ?? error)
      .trim()
      .split('\n')
      .at(-1)
      ?.slice(0, 200);
  }
}

const reason = install();

describe.skipIf(reason !== undefined)(
  `e2b ${VERSION} for Python${reason === undefined ? '' : `: not here (${reason})`}`,
  () => {
    let bed: E2bBed;

    beforeAll(async () => {
      bed = await makeE2bBed();
    });

    afterAll(async () => {
      await bed.close();
    });

    it('runs a program as its documents have it', () => {
      const { url } = bed.server;
      const env = { PATH: '/usr/bin:/bin', E2B_API_URL: url, E2B_SANDBOX_URL: url, E2B_API_KEY: bed.apiKey };
      const { stdout, stderr, status } = spawnSync(PYTHON, [PROGRAM], { env, encoding: 'utf8', timeout: 150_000 });
      expect(stderr).toBe('');
      expect(status).toBe(0);
      expect(JSON.parse(stdout)).toEqual({
        run: [0, 'yes more\n', 'yes more\n'],
        exit: [4, 'err\n'],
        listed: true,
        background: 'got input\n',
        killed: [true, false],
        read: ['content', [0, 255]],
        entries: [
          ['bytes', 'file'],
          ['file.txt', 'file'],
        ],
        watched: true,
        left: ['/home/user/folder/renamed.txt'],
        missing: true,
        found: true,
        state: 'running',
        paused: [false, 'paused'],
        again: 'content',
        copy: 'content',
        deleted: true,
        running: false,
      });
    });
  },
  180_000,
);
