import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { waitUntil } from '../../cli/stack/wait.ts';
import { NpmRegistry } from '../doubles/npm-registry.ts';
import { makeHome, runCli } from '../support/stack.ts';

const VERSION = '1.18.33';
const PLATFORM = `opencode-${process.platform}-${process.arch}`;
const MAIN = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

let registry: NpmRegistry;
let home: string;
let installDir: string;
let env: Record<string, string>;

const platformPackage = {
  name: PLATFORM,
  version: VERSION,
  files: { 'bin/opencode': '#!/bin/sh\necho "a made-up harness"\n' },
};

beforeAll(async () => {
  const optionalDependencies = { [PLATFORM]: VERSION };
  const main = { name: 'opencode-ai', version: VERSION, files: { 'bin/stub': '' }, optionalDependencies };
  registry = await NpmRegistry.start([main, platformPackage]);
});
afterAll(() => registry.close());
beforeEach(() => {
  home = makeHome();
  installDir = path.join(home, 'harness');
  registry.tarballs.length = 0;
  env = {
    LONGHAUL_HARNESS_DIR: installDir,
    npm_config_registry: registry.url,
    npm_config_cache: path.join(home, 'npm-cache'),
  };
});
afterEach(() => {
  registry.release();
  rmSync(home, { recursive: true, force: true, maxRetries: 10 });
});

const target = (): string => path.join(installDir, `opencode-ai@${VERSION}`);
const asides = (): string[] =>
  existsSync(installDir) ? readdirSync(installDir).filter((name) => name.includes('.new-')) : [];

interface Doctor {
  ok: boolean;
  harnesses: {
    name: string;
    isInstalled: boolean;
    starts: string | null;
    problem: string | null;
    next: string | null;
  }[];
}

async function opencodeOfDoctor(): Promise<{ code: number | null; entry: Doctor['harnesses'][number] | undefined }> {
  const { code, stdout } = await runCli(['harness', 'doctor', '--json'], home, env);
  return { code, entry: (JSON.parse(stdout) as Doctor).harnesses.find(({ name }) => name === 'opencode') };
}

describe('longhaul harness', () => {
  it('refuses a name it does not know and tells those it knows', async () => {
    const { code, stderr } = await runCli(['harness', 'install', 'opencode', 'aider'], home, env);
    expect(code).toBe(2);
    expect(stderr).toContain('no harness aider');
    expect(stderr).toContain('claude-code');
    expect(registry.tarballs).toEqual([]);
  });

  it('installs once, however many ask at the same time', async () => {
    const results = await Promise.all(
      Array.from({ length: 3 }, () => runCli(['harness', 'install', 'opencode'], home, env)),
    );
    expect(results.map(({ code }) => code)).toEqual([0, 0, 0]);
    expect(results.filter(({ stdout }) => stdout.includes(': installed in'))).toHaveLength(1);
    expect(registry.tarballs.toSorted()).toEqual(['opencode-ai', PLATFORM].toSorted());
    expect(asides()).toEqual([]);
    const again = await runCli(['harness', 'install', 'opencode'], home, env);
    expect(again.stdout).toContain(': was installed');
    expect(await opencodeOfDoctor()).toMatchObject({ code: 0, entry: { starts: 'a made-up harness', next: null } });
  });

  it('does not take a killed installation for a whole one', async () => {
    registry.hold();
    const killed = startGroup(['harness', 'install', 'opencode']);
    await waitUntil(() => Promise.resolve(registry.tarballs.length > 0), { what: 'npm', timeoutMs: 120_000 });
    process.kill(-Number(killed.pid), 'SIGKILL');
    await waitUntil(() => Promise.resolve(killed.signalCode !== null), { what: 'the end', timeoutMs: 60_000 });
    registry.release();
    expect(asides()).toHaveLength(1);
    expect((await opencodeOfDoctor()).entry).toMatchObject({ isInstalled: false, problem: 'not installed' });
    const { code, stdout } = await runCli(['harness', 'install', 'opencode'], home, env);
    expect({ code, stdout }).toMatchObject({ code: 0, stdout: expect.stringContaining(': installed in') });
    expect(asides()).toEqual([]);
    expect((await opencodeOfDoctor()).entry).toMatchObject({ starts: 'a made-up harness' });
  });

  it('replaces what lies there but is not whole', async () => {
    mkdirSync(path.join(target(), 'node_modules', PLATFORM, 'bin'), { recursive: true });
    writeFileSync(path.join(target(), 'node_modules', PLATFORM, 'bin', 'opencode'), 'half', { mode: 0o755 });
    expect((await opencodeOfDoctor()).entry).toMatchObject({ isInstalled: false });
    expect((await runCli(['harness', 'install', 'opencode'], home, env)).code).toBe(0);
    expect((await opencodeOfDoctor()).entry).toMatchObject({ starts: 'a made-up harness' });
  });

  it('says of a harness that does not start what to do', async () => {
    await runCli(['harness', 'install', 'opencode'], home, env);
    const file = path.join(target(), 'node_modules', PLATFORM, 'bin', 'opencode');
    writeFileSync(file, '#!/bin/sh\necho "no such library" >&2\nexit 127\n');
    const { code, entry } = await opencodeOfDoctor();
    expect(code).toBe(1);
    expect(entry).toMatchObject({ isInstalled: true, starts: null, problem: 'it does not start: no such library' });
    expect(entry?.next).toContain('longhaul harness install opencode');
  });

  it('names the package that the registry does not have', async () => {
    const { code, stderr } = await runCli(['harness', 'install', 'codex'], home, env);
    expect(code).toBe(1);
    expect(stderr).toContain('npm install @openai/codex@0.169.0 failed');
    expect(asides()).toEqual([]);
  });
});

/** In a process group of its own, so that a kill takes npm along. */
function startGroup(args: string[]): ChildProcess {
  return spawn(process.execPath, [MAIN, ...args], {
    env: { ...process.env, LONGHAUL_HOME: home, ...env },
    stdio: 'ignore',
    detached: true,
  });
}
