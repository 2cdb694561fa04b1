import { existsSync, readdirSync, rmSync } from 'node:fs';
import { afterAll, describe, expect, it } from 'vitest';
import { eventually, makeHome, runCli, spawnCli } from '../support/stack.ts';

const LIMIT_MS = 240_000;

const homeOf = (stdout: string): string => /home (\S+)/.exec(stdout)?.[1] ?? '';

describe('longhaul demo', () => {
  // The demo must not touch the home of the one who runs it.
  const home = makeHome();
  afterAll(() => rmSync(home, { recursive: true, force: true }));

  it(
    'checks every claim on a stack of its own and leaves nothing behind',
    async () => {
      const { code, stdout, stderr } = await runCli(['demo', '--model', 'scripted'], home);
      expect(`${stdout}\n${stderr}`).not.toMatch(/✗|not checked/);
      expect(stdout).toMatch(/✓ the worker died by SIGKILL \d+\.\d s after the command's start and \d+\.\d s before/);
      expect(stdout).toContain('✓ the command ran exactly once: 1 start, 1 end');
      expect(stdout).toMatch(
        /✓ the session carried on by itself: the result \d+\.\d s, the next model step \d+\.\d s after the kill/,
      );
      expect(stdout).toMatch(/✓ the event log has no gap \(seq 1 to \d+\)/);
      expect(stdout).toContain('was billed once (1, 1, 1, 1, 1, 1; 6 calls in the ledger)');
      expect(stdout).toContain('consumed once by the start of the call');
      expect(stdout).toContain(
        '✓ the program passes its test: all 4 tests passed (before the fix: 1 of 4 tests failed)',
      );
      expect(stdout).toMatch(/✓ the schedule started 1 session: succeeded, trigger schedule/);
      expect(stdout).toMatch(/✓ cost of the session \$0\.\d+ = sum over models/);
      expect(stdout).toMatch(/✓ a command called an allowed host with a credential it cannot see .*refused \(403\)/);
      // eslint-disable-next-line no-control-regex
      expect(stdout).not.toMatch(/\u001b\[/);
      expect(code).toBe(0);
      expect(homeOf(stdout)).toContain('longhaul-demo-');
      expect(existsSync(homeOf(stdout))).toBe(false);
      expect(readdirSync(home)).toEqual([]);
    },
    LIMIT_MS,
  );

  it(
    'stops its stack when it is interrupted',
    async () => {
      const child = spawnCli(['demo', '--model', 'scripted'], home);
      let stdout = '';
      child.stdout?.on('data', (chunk: Buffer) => (stdout += chunk.toString('utf8')));
      const ended = new Promise<number | null>((resolve) => void child.once('close', resolve));
      await eventually('the stack is up and a session runs', () => /session +sesn_/.test(stdout), 90_000);
      child.kill('SIGINT');
      expect(await ended).toBe(130);
      const url = /ready at (http:\S+),/.exec(stdout)?.[1] ?? '';
      await expect(fetch(`${url}/healthz`)).rejects.toThrow();
      expect(existsSync(homeOf(stdout))).toBe(false);
    },
    LIMIT_MS,
  );

  it('says that it cannot ask without a terminal', async () => {
    const { code, stderr } = await runCli(['demo', '--interactive'], home);
    expect(code).toBe(2);
    expect(stderr).toContain('--interactive needs a terminal');
  });
});
