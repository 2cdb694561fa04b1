import * as sdk from 'e2b';
import * as older from 'e2b-older';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { until } from '../support/sandbox-commands.ts';
import { makeE2bBed, type E2bBed } from '../support/e2b-server.ts';

let bed: E2bBed;
let opts: { apiKey: string; apiUrl: string; sandboxUrl: string; requestTimeoutMs: number };

beforeAll(async () => {
  bed = await makeE2bBed();
  opts = { apiKey: bed.apiKey, apiUrl: bed.server.url, sandboxUrl: bed.server.url, requestTimeoutMs: 60_000 };
});

afterAll(async () => {
  await bed.close();
});

const GENERATIONS = [
  ['e2b 2.51 (/v2 routes)', sdk],
  ['e2b 2.50 (routes of before)', older as unknown as typeof sdk],
] as const;

describe.each(GENERATIONS)('a program of %s', (_name, { Sandbox, CommandExitError, FileType }) => {
  let sandbox: sdk.Sandbox;

  beforeAll(async () => {
    sandbox = await Sandbox.create({ ...opts, envs: { FROM_CREATE: 'yes' }, metadata: { name: 'a b&c=d/ü' } });
  });

  afterAll(async () => {
    await sandbox.kill();
  });

  it('runs a command and reads what it says', async () => {
    const seen: string[] = [];
    const line = 'echo "$GREETING $FROM_CREATE $HOME $(pwd)"; echo oops >&2';
    const result = await sandbox.commands.run(line, {
      envs: { GREETING: 'hello' },
      onStdout: (data) => void seen.push(data),
    });
    expect(result).toMatchObject({ exitCode: 0, stdout: 'hello yes /home/user /home/user\n', stderr: 'oops\n' });
    expect(seen.join('')).toBe(result.stdout);
    expect((await sandbox.commands.run('pwd', { cwd: '/tmp', user: 'root' })).stdout).toBe('/tmp\n');
  });

  it('is told of an exit code', async () => {
    const failed = sandbox.commands.run('echo out; echo err >&2; exit 3');
    await expect(failed).rejects.toBeInstanceOf(CommandExitError);
    await expect(failed).rejects.toMatchObject({ exitCode: 3, stdout: 'out\n', stderr: 'err\n' });
  });

  it('ends a command at its time limit', async () => {
    const slow = sandbox.commands.run('sleep 600', { timeoutMs: 500 });
    await expect(slow).rejects.toMatchObject({ name: 'TimeoutError' });
    await until('it is gone', async () =>
      (await sandbox.commands.list()).every((each) => !each.args.includes('sleep 600')),
    );
  });
  it('writes, reads, lists and removes files', async () => {
    const written = await sandbox.files.write('notes/hello.txt', 'hello');
    expect(written).toMatchObject({ name: 'hello.txt', type: 'file', path: '/home/user/notes/hello.txt' });
    expect(await sandbox.files.read('/home/user/notes/hello.txt')).toBe('hello');
    expect((await sandbox.commands.run('cat notes/hello.txt')).stdout).toBe('hello');
    const info = await sandbox.files.getInfo('notes/hello.txt');
    expect(info).toMatchObject({ name: 'hello.txt', type: FileType.FILE, size: 5, permissions: '-rw-r--r--' });
    expect(await sandbox.files.makeDir('notes/deep')).toBe(true);
    expect(await sandbox.files.makeDir('notes/deep')).toBe(false);
    await sandbox.files.rename('notes/hello.txt', 'notes/deep/renamed.txt');
    expect(await sandbox.files.exists('notes/hello.txt')).toBe(false);
    const names = (await sandbox.files.list('notes', { depth: 2 })).map(({ path, type }) => [path, type]);
    expect(names).toEqual([
      ['/home/user/notes/deep', 'dir'],
      ['/home/user/notes/deep/renamed.txt', 'file'],
    ]);
    await sandbox.files.remove('notes');
    expect(await sandbox.files.exists('notes')).toBe(false);
    await expect(sandbox.files.read('notes/hello.txt')).rejects.toMatchObject({ name: 'FileNotFoundError' });
    await expect(sandbox.files.list('notes')).rejects.toMatchObject({ name: 'FileNotFoundError' });
  });
});
