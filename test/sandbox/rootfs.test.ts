import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createSandboxProviders } from '../../activities/sandbox/index.ts';
import type { SandboxProvider } from '../../activities/sandbox/port.ts';
import { createLogger } from '../../telemetry/logger.ts';
import { LONG_MS, runIn, shell, smallSpec, soon } from '../support/sandbox-commands.ts';

const PROGRAMS = [
  'bash',
  'cat',
  'ls',
  'head',
  'mkdir',
  'mktemp',
  'chmod',
  'stat',
  'mv',
  'rm',
  'wc',
  'dirname',
  'touch',
];

/** A program with the libraries it is linked to. */
function install(root: string, program: string): void {
  const found = execFileSync('sh', ['-c', 'command -v "$1"', 'sh', program]).toString().trim();
  const libraries = execFileSync('ldd', [found]).toString().match(/\/\S+/g) ?? [];
  for (const file of [found, ...libraries]) {
    const to = path.join(root, file.replace(/^\/(bin|lib|lib64)\//, '/usr/$1/'));
    mkdirSync(path.dirname(to), { recursive: true });
    copyFileSync(realpathSync(file), to);
  }
}

describe('a root file system of the operator', { timeout: LONG_MS }, () => {
  let folder: string;
  let provider: SandboxProvider;

  beforeAll(() => {
    folder = mkdtempSync(path.join(os.tmpdir(), 'longhaul-rootfs-'));
    chmodSync(folder, 0o755);
    const root = path.join(folder, 'tiny');
    for (const program of PROGRAMS) install(root, program);
    for (const name of ['bin', 'lib', 'lib64']) symlinkSync(`usr/${name}`, path.join(root, name));
    symlinkSync('bash', path.join(root, 'usr/bin/sh'));
    mkdirSync(path.join(root, 'etc/ssl/certs'), { recursive: true });
    writeFileSync(path.join(root, 'etc/made-here'), 'by the operator\n');
    writeFileSync(path.join(root, 'etc/ssl/certs/ca-certificates.crt'), 'old\n');
    writeFileSync(path.join(folder, 'bundle.pem'), 'bundle\n', { mode: 0o644 });
    const options = { rootDir: path.join(folder, 'boxes'), rootfsDir: folder, logger: createLogger('test', 'silent') };
    provider = createSandboxProviders(options)['local'] as SandboxProvider;
  });
  afterAll(async () => {
    for await (const { ref } of provider.list('rootfs', soon())) await provider.destroy(ref, soon());
    rmSync(folder, { recursive: true, force: true });
  });

  it('is what commands see, and cannot be written to', async () => {
    const spec = smallSpec('rootfs', { image: 'tiny', trustBundleFile: path.join(folder, 'bundle.pem') });
    const ref = await provider.create(spec, 'image', soon());
    expect((await runIn(provider, ref, ['cat', '/etc/made-here'])).stdout).toBe('by the operator\n');
    const { stdout } = await shell(
      provider,
      ref,
      'ls /usr/bin | wc -l; cat /etc/ssl/certs/ca-certificates.crt; echo x > w && cat w',
    );
    expect(stdout).toBe(`${PROGRAMS.length + 1}\nbundle\nx\n`);
    for (const place of ['/etc/made-here', '/usr/bin/cat', '/new', '/etc/new', '/usr/new']) {
      const tried = await shell(provider, ref, `( : > ${place} ) 2>/dev/null && echo WROTE || echo refused`);
      expect([place, tried.stdout]).toEqual([place, 'refused\n']);
    }
    await provider.writeFile(ref, '/workspace/file', Buffer.from('content'), soon());
    expect(Buffer.from(await provider.readFile(ref, '/workspace/file', 100, soon())).toString()).toBe('content');
    const saved = await provider.snapshot(ref, 'image', soon());
    await provider.destroy(ref, soon());
    const next = await provider.create({ ...spec, snapshot: saved }, 'next', soon());
    expect((await shell(provider, next, 'cat file w')).stdout).toBe('contentx\n');
    expect(await provider.deleteSnapshot(saved, soon())).toBe(true);
  });

  it('is refused when there is none of that name', async () => {
    for (const image of ['nowhere', '..', '.', '../tiny', 'tiny/usr', '/', '']) {
      const made = provider.create(smallSpec('rootfs', { image }), `no-${image}`, soon());
      await expect(made).rejects.toMatchObject({ code: 'sandbox_invalid', field: 'image' });
    }
  });
});
