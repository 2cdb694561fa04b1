import { rmSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { makeHome, runCli } from '../support/stack.ts';

interface Report {
  ok: boolean;
  checks: { name: string; ok: boolean; detail: string; fix?: string }[];
}

let home: string;
beforeEach(() => {
  home = makeHome();
});
afterEach(() => rmSync(home, { recursive: true, force: true }));

describe('longhaul doctor', () => {
  it('reports every prerequisite as JSON on stdout', async () => {
    const { code, stdout, stderr } = await runCli(['doctor', '--json'], home);
    const report = JSON.parse(stdout) as Report;
    expect(stderr).toBe('');
    expect(report.checks.map(({ name }) => name)).toEqual(
      expect.arrayContaining(['node', 'programs', 'sandbox', 'postgres', 'temporal', 'home', 'ports', 'stack']),
    );
    expect(code).toBe(report.ok ? 0 : 1);
    for (const check of report.checks) expect('fix' in check).toBe(!check.ok);
  });

  it('says what to do about a problem and exits with 1', async () => {
    const { code, stdout } = await runCli(['doctor'], home, { TEMPORAL_CLI: '/nowhere/temporal' });
    expect(code).toBe(1);
    expect(stdout).toMatch(/FAIL {2}temporal .*\/nowhere\/temporal/);
    expect(stdout).toContain('→ Run `longhaul setup`.');
  });

  it('has a line for each sandbox provider that is configured', async () => {
    const env = { LONGHAUL_DOCKER_HOST: 'unix:///no/such/socket' };
    const { code, stdout } = await runCli(['doctor', '--json'], home, env);
    expect(code).toBe(1);
    const docker = (JSON.parse(stdout) as Report).checks.find(({ name }) => name === 'docker');
    expect(docker).toMatchObject({ ok: false, detail: expect.stringContaining('cannot be reached (ENOENT)') });
    const wrong = await runCli(['doctor'], home, { LONGHAUL_DOCKER_HOST: 'nonsense' });
    expect(wrong.stdout).toMatch(/FAIL {2}providers .*unix:/);
  });

  it('names the exit codes of wrong usage', async () => {
    expect((await runCli(['nonsense'], home)).code).toBe(2);
    expect((await runCli(['dev', '--port', 'none'], home)).code).toBe(2);
    expect((await runCli(['--help'], home)).code).toBe(0);
  });
});
