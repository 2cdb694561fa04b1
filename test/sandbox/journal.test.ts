import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Journal, type JournalTransport } from '../../activities/sandbox/journal/index.ts';
import type { ExecSpec, ExecState } from '../../activities/sandbox/port.ts';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { LONG_MS, soon, until } from '../support/sandbox-commands.ts';

const hasBusybox = spawnSync('busybox', ['true']).status === 0;
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

/** Every tool of the scripts comes from this shell's package alone. */
interface Shell {
  name: string;
  framing: 'raw' | 'text';
  isStaged: boolean;
  /** Null: the machine's own. */
  toolFolder: string | null;
}

/** Runs programs on this machine, as a provider's API would inside of a sandbox. */
function transportOf(shell: Shell): JournalTransport & { cut: boolean } {
  const self = {
    /** Sends half of the input, then dies. */
    cut: false,
    async run(argv: string[], options: { stdin?: Uint8Array; signal: AbortSignal }): Promise<Uint8Array> {
      const [file = '', ...args] = argv;
      const env = { PATH: shell.toolFolder ?? '/usr/bin:/bin', NOISE: 'of the image' };
      const child = spawn(shell.toolFolder === null ? file : path.join(shell.toolFolder, file), args, {
        env,
        stdio: ['pipe', 'pipe', 'ignore'],
        cwd: '/',
        detached: true,
      });
      child.stdin.on('error', () => undefined);
      const stdin = options.stdin ?? new Uint8Array(0);
      child.stdin.end(self.cut ? stdin.subarray(0, stdin.length / 2) : stdin);
      const found: Uint8Array[] = [];
      child.stdout.on('data', (piece: Uint8Array) => found.push(piece));
      // Not `close`: what goes on in the background must not hold the call.
      await once(child, 'exit');
      await new Promise((resolve) => setImmediate(resolve));
      if (!child.stdout.readableEnded) await Promise.race([once(child.stdout, 'end'), once(child, 'close')]);
      const all = Buffer.concat(found);
      return shell.framing === 'raw' ? all : Buffer.from(`Welcome!\n${all.toString('utf8')}`);
    },
  };
  if (!shell.isStaged) return self;
  const stage = async (file: string, content: Uint8Array): Promise<void> => {
    mkdirSync(path.dirname(file), { recursive: true });
    await writeFile(file, self.cut ? content.subarray(0, content.length / 2) : content);
  };
  return Object.assign(self, { stage });
}

const exited = (exitCode: number): ExecState => ({ state: 'exited', exitCode, signal: null });
/** The code of what went wrong, or `no error`. */
const codeOf = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => 'no error',
    (error: unknown) => (error instanceof LonghaulError ? error.code : String(error)),
  );
/** Whether any process of this machine has this in its command line. */
const running = (pattern: string): boolean =>
  readdirSync('/proc').some((pid) => {
    try {
      return (
        /^\d+$/.test(pid) && readFileSync(`/proc/${pid}/cmdline`, 'latin1').replaceAll('\0', ' ').includes(pattern)
      );
    } catch {
      return false;
    }
  });

const busyboxFolder = hasBusybox ? mkdtempSync(path.join(os.tmpdir(), 'longhaul-busybox-')) : null;
if (busyboxFolder !== null) {
  const busybox = spawnSync('sh', ['-c', 'command -v busybox'], { encoding: 'utf8' }).stdout.trim();
  const applets = spawnSync(busybox, ['--list'], { encoding: 'utf8' }).stdout.split('\n').filter(Boolean);
  for (const applet of applets) if (applet !== 'busybox') symlinkSync(busybox, path.join(busyboxFolder, applet));
}
afterAll(() => {
  if (busyboxFolder !== null) rmSync(busyboxFolder, { recursive: true });
});

const SHELLS: Shell[] = [
  { name: 'sh and coreutils, bytes', framing: 'raw', isStaged: false, toolFolder: null },
  { name: 'sh and coreutils, text, staged input', framing: 'text', isStaged: true, toolFolder: null },
  ...(busyboxFolder === null
    ? []
    : [{ name: 'busybox, text', framing: 'text' as const, isStaged: false, toolFolder: busyboxFolder }]),
];

if (busyboxFolder === null) {
  it.skip('command journal: busybox: SKIPPED, busybox-static is not installed', () => undefined);
}

describe.each(SHELLS)('command journal: $name', { timeout: LONG_MS }, (shell) => {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'longhaul-journal-'));
  const root = path.join(folder, 'journal');
  const workspace = path.join(folder, 'workspace');
  const transport = transportOf(shell);
  const make = (change: { disk?: { limitBytes: number; folders: string[] } } = {}): Journal =>
    new Journal({ transport, root, framing: shell.framing, env: { FROM_SANDBOX: 'sandbox' }, ...change });
  const journal = make();
  let count = 0;

  beforeAll(() => mkdirSync(workspace));
  afterAll(async () => {
    for (const { execId, status } of await journal.list(1_000, soon())) {
      if (status.state === 'running') await journal.kill(execId, soon());
    }
    rmSync(folder, { recursive: true });
  });

  const start = (argv: string[], change: Partial<ExecSpec> = {}, by = journal): Promise<string> => {
    count += 1;
    const execId = change.execId ?? `run-${count}`;
    const spec = { execId, argv, timeoutMs: 150_000, cwd: workspace, ...change };
    return by.start(spec, soon()).then(() => execId);
  };
  const follow = async (execId: string): Promise<{ status: ExecState; stdout: Buffer; stderr: Buffer }> => {
    const out: Uint8Array[] = [];
    const err: Uint8Array[] = [];
    for (let next = { out: 0, err: 0 }; ;) {
      const poll = await journal.poll(execId, next, 5_000, soon());
      out.push(poll.stdout);
      err.push(poll.stderr);
      ({ next } = poll);
      if (poll.status.state === 'running' || poll.stdout.length + poll.stderr.length > 0) continue;
      return { status: poll.status, stdout: Buffer.concat(out), stderr: Buffer.concat(err) };
    }
  };
  const run = async (
    line: string,
    change: Partial<ExecSpec> = {},
  ): Promise<{ status: ExecState; out: string; err: string }> => {
    const { status, stdout, stderr } = await follow(await start(['sh', '-c', line], change));
    return { status, out: stdout.toString(), err: stderr.toString() };
  };
  it('runs a command with its own environment, and tells how it ended', async () => {
    const done = await run('pwd; echo "$FROM_SANDBOX $HOME $NOISE"; echo wrong >&2; exit 7');
    expect(done).toEqual({ status: exited(7), out: `${workspace}\nsandbox /workspace \n`, err: 'wrong\n' });
    const missing = await follow(await start(['no-such-program']));
    expect(missing.status).toEqual(exited(127));
    expect(missing.stderr.toString()).toContain('no-such-program');
    const shot = await run('kill -9 $$');
    expect(shot.status).toEqual({ state: 'exited', exitCode: 137, signal: 'SIGKILL' });
    const odd = ['a b', '', '$HOME', "it's", 'ä\n', '--', '*', 'A=b'];
    const shown = await follow(await start(['printf', '[%s]', ...odd]));
    expect(shown.stdout.toString()).toBe(odd.map((each) => `[${each}]`).join(''));
    expect(await codeOf(start(['true'], { execId: '../x' }))).toBe('sandbox_invalid');
  });

  it('carries bytes both ways, in pieces, from any offset', async () => {
    const content = Buffer.from(Uint8Array.from({ length: 3_000_001 }, (_value, index) => (index * 7919) % 256));
    const done = await follow(await start(['cat'], { stdin: content, execId: 'bytes' }));
    expect(done.status).toEqual(exited(0));
    expect(done.stdout.equals(content)).toBe(true);
    const middle = await journal.poll('bytes', { out: 1_234_567, err: 0 }, 0, soon());
    expect(Buffer.compare(Buffer.from(middle.stdout), content.subarray(1_234_567, middle.next.out))).toBe(0);
    expect(middle.stdout.length).toBe(1024 * 1024);
    expect((await run('cat')).out).toBe('');
    const past = await journal.poll('bytes', { out: 9_999_999, err: 5 }, 0, soon());
    expect(past).toMatchObject({ status: exited(0), next: { out: 9_999_999, err: 5 } });
  });

  it('never runs a command whose input was cut off', async () => {
    transport.cut = true;
    const cut = start(['sh', '-c', 'cat > cut-ran'], { execId: 'cut', stdin: bytes('0123456789') });
    expect(await codeOf(cut)).toBe('sandbox_unavailable');
    transport.cut = false;
    expect((await journal.poll('cut', { out: 0, err: 0 }, 0, soon())).status).toEqual({ state: 'absent' });
    expect(existsSync(path.join(workspace, 'cut-ran'))).toBe(false);
    expect((await follow(await start(['cat'], { execId: 'cut', stdin: bytes('0123456789') }))).stdout.toString()).toBe(
      '0123456789',
    );
  });

  it('starts an id once, however many ask, each with its own input', async () => {
    const all = ['a', 'b', 'c', 'd', 'e'].map((each) =>
      start(['sh', '-c', 'cat >> once; sleep 0.2'], { execId: 'once', stdin: bytes(each) }),
    );
    await Promise.all(all);
    await follow('once');
    await start(['sh', '-c', 'echo again >> once'], { execId: 'once' });
    await follow('once');
    expect(readFileSync(path.join(workspace, 'once'), 'utf8')).toMatch(/^[a-e]$/);
    expect(readdirSync(path.join(root, 'x-once')).filter((name) => /^(in|o|e|i)\./.test(name))).toEqual([]);
  });

  it('never starts what was killed before', async () => {
    await journal.kill('forbidden', soon());
    await start(['touch', 'forbidden'], { execId: 'forbidden' });
    expect((await follow('forbidden')).status).toEqual({ state: 'killed', reason: 'signal' });
    expect(existsSync(path.join(workspace, 'forbidden'))).toBe(false);
  });

  it('gives a race of start and kill one answer', async () => {
    const seconds = `606.${process.pid}${count}`;
    for (let round = 0; round < 6; round += 1) {
      const execId = `race-${round}`;
      await Promise.all([
        start(['sh', '-c', `sleep ${seconds}`], { execId }),
        round % 2 === 0 ? journal.kill(execId, soon()) : start(['sleep', seconds], { execId }),
      ]);
      await journal.kill(execId, soon());
      expect((await follow(execId)).status).toEqual({ state: 'killed', reason: 'signal' });
    }
    await until('nothing of them runs', () => Promise.resolve(!running(`sleep ${seconds}`)));
  });

  it('kills the whole tree, whatever sessions it made, and nothing else', async () => {
    const tag = `${process.pid}${count}`;
    await start(['sleep', `605.${tag}`], { execId: 'bystander' });
    const line = `trap "" TERM; (setsid sleep 603.${tag} &); env -i sleep 604.${tag} & (sleep 602.${tag} &) ; echo up; wait`;
    await start(['sh', '-c', line], { execId: 'tree' });
    await until(
      'it is up',
      async () => (await journal.poll('tree', { out: 0, err: 0 }, 1_000, soon())).stdout.length > 0,
    );
    await until('they run', () => Promise.resolve([602, 603, 604].every((each) => running(`sleep ${each}.${tag}`))));
    await Promise.all([journal.kill('tree', soon()), journal.kill('tree', soon())]);
    expect((await follow('tree')).status).toEqual({ state: 'killed', reason: 'signal' });
    expect([602, 603, 604].filter((each) => running(`sleep ${each}.${tag}`))).toEqual([]);
    expect(running(`sleep 605.${tag}`)).toBe(true);
    await journal.kill('bystander', soon());
  });

  it('keeps the time limit although nobody looks, also over what ran away', async () => {
    const tag = `${process.pid}${count}`;
    await start(['sh', '-c', `(setsid sleep 611.${tag} &); sleep 612.${tag}`], { timeoutMs: 700, execId: 'slow' });
    await until('it is gone', () => Promise.resolve(!running(`sleep 611.${tag}`) && !running(`sleep 612.${tag}`)), 100);
    expect((await follow('slow')).status).toEqual({ state: 'killed', reason: 'timeout' });
  });

  it('keeps the output limit although nobody looks, over both streams together', async () => {
    await start(['sh', '-c', 'yes & yes >&2; wait'], { execId: 'flood' });
    const files = ['out', 'err'].map((name) => path.join(root, 'x-flood', name));
    await until('it ended', () => Promise.resolve(existsSync(path.join(root, 'x-flood', 'exit'))), 50);
    const sizes = files.map((file) => readFileSync(file).length);
    expect(sizes[0]! + sizes[1]!).toBeGreaterThan(LIMITS.execOutputBytes);
    for (const size of sizes) expect(size).toBeLessThanOrEqual(LIMITS.execOutputBytes + 2_048);
    const { status } = await journal.poll('flood', { out: 0, err: 0 }, 0, soon());
    expect(status).toEqual({ state: 'killed', reason: 'output_limit' });
  });

  it('keeps a disk limit by looking', async () => {
    const disk = { limitBytes: 20_000_000, folders: [workspace] };
    const line = 'i=0; while :; do i=$((i + 1)); head -c 1000000 /dev/zero > fill.$i; sleep 0.02; done';
    const execId = await start(['sh', '-c', line], {}, make({ disk }));
    expect((await follow(execId)).status).toEqual({ state: 'killed', reason: 'disk_limit' });
    for (const name of readdirSync(workspace)) if (name.startsWith('fill.')) rmSync(path.join(workspace, name));
  });

  it('waits for output, and for the end', async () => {
    await start(['sh', '-c', 'echo first; while [ ! -e go ]; do sleep 0.01; done; echo second'], { execId: 'waits' });
    await until('the first line', async () => {
      const poll = await journal.poll('waits', { out: 0, err: 0 }, 5_000, soon());
      return Buffer.from(poll.stdout).toString() === 'first\n';
    });
    const quiet = await journal.poll('waits', { out: 6, err: 0 }, 100, soon());
    expect(quiet).toMatchObject({ status: { state: 'running' }, next: { out: 6, err: 0 } });
    await writeFile(path.join(workspace, 'go'), '');
    expect((await follow('waits')).stdout.toString()).toBe('first\nsecond\n');
  });

  it('ends with its command, not with what it left behind, whose output still counts', async () => {
    const tag = `${process.pid}${count}`;
    const done = await run(
      `echo one; echo two > /dev/stdout; (while [ ! -e late ]; do sleep 0.05; done; echo late; exec sleep 620.${tag}) & echo three`,
      { execId: 'leaves' },
    );
    expect(done).toMatchObject({ status: exited(0), out: 'one\ntwo\nthree\n' });
    await writeFile(path.join(workspace, 'late'), '');
    await until('the late line', async () => {
      const poll = await journal.poll('leaves', { out: 14, err: 0 }, 100, soon());
      return Buffer.from(poll.stdout).toString() === 'late\n';
    });
    await until('what it left behind goes on', () => Promise.resolve(running(`sleep 620.${tag}`)));
    spawnSync('sh', ['-c', `kill $(grep -ls "sleep.620.${tag}" /proc/[0-9]*/cmdline | cut -d/ -f3)`]);
  });

  it('feeds open input by offset, ends it, and refuses gaps', async () => {
    await start(['sh', '-c', 'while read -r line; do echo "got $line"; done; echo over'], {
      execId: 'fed',
      stdin: 'open',
    });
    const feed = (offset: number, text: string | null): Promise<number> =>
      journal.input('fed', offset, text === null ? null : bytes(text), soon());
    expect(await feed(0, 'one\n')).toBe(4);
    expect(await feed(0, 'one\n')).toBe(4);
    await until(
      'it is answered',
      async () => (await journal.poll('fed', { out: 0, err: 0 }, 1_000, soon())).stdout.length === 8,
    );
    expect(await codeOf(feed(9, 'x'))).toBe('sandbox_invalid');
    expect(await Promise.all([feed(2, 'e\ntwo\n'), feed(4, 'two\n')])).toContain(8);
    expect(await feed(8, null)).toBe(8);
    const done = await follow('fed');
    expect(done.stdout.toString()).toBe('got one\ngot two\nover\n');
    expect(await feed(4, 'two\n')).toBe(8);
    expect(await codeOf(feed(8, 'late'))).toBe('sandbox_invalid');
    expect(await codeOf(journal.input('nobody', 0, bytes('x'), soon()))).toBe('sandbox_invalid');
    const content = Buffer.alloc(400_000, 'xyz');
    await start(['sha256sum'], { execId: 'much', stdin: 'open' });
    const half = await journal.input('much', 0, content.subarray(0, 200_000), soon());
    transport.cut = true;
    await journal.input('much', half, content.subarray(half), soon()).catch(() => undefined);
    transport.cut = false;
    expect(await journal.input('much', half, content.subarray(half), soon())).toBe(400_000);
    await journal.input('much', 400_000, null, soon());
    const sum = createHash('sha256').update(content).digest('hex');
    expect((await follow('much')).stdout.toString().slice(0, 64)).toBe(sum);
  });

  it('passes signals on, SIGINT too', async () => {
    const line = 'trap "echo caught; exit 3" INT; echo up; while :; do sleep 0.05; done';
    await start(['sh', '-c', line], { execId: 'caught' });
    await until(
      'it is up',
      async () => (await journal.poll('caught', { out: 0, err: 0 }, 1_000, soon())).stdout.length > 0,
    );
    expect(await journal.signal('caught', 'SIGINT', soon())).toBe(true);
    expect(await follow('caught')).toMatchObject({ status: exited(3), stdout: Buffer.from('up\ncaught\n') });
    expect(await journal.signal('caught', 'SIGINT', soon())).toBe(false);
  });

  it('tells a command whose supervisor died as lost, and leaves nothing of it running', async () => {
    const tag = `${process.pid}${count}`;
    await start(['sh', '-c', `echo begun; sleep 630.${tag}`], { execId: 'orphan' });
    await until(
      'it runs',
      async () => (await journal.poll('orphan', { out: 0, err: 0 }, 1_000, soon())).stdout.length > 0,
    );
    const [, pid = ''] = readFileSync(path.join(root, 'x-orphan', 'go'), 'utf8').split(' ');
    process.kill(Number(pid), 'SIGKILL');
    const lost = await follow('orphan');
    expect(lost).toMatchObject({ status: { state: 'lost' }, stdout: Buffer.from('begun\n') });
    await until('nothing of it runs', () => Promise.resolve(!running(`sleep 630.${tag}`)), 50);
    await start(['touch', 'again'], { execId: 'orphan' });
    expect(await follow('orphan')).toMatchObject({ status: { state: 'lost' } });
    expect(existsSync(path.join(workspace, 'again'))).toBe(false);
  });

  it('tells a command of before a restart as lost', async () => {
    mkdirSync(path.join(root, 'x-before'));
    writeFileSync(path.join(root, 'x-before', 'sup.1'), `run ${process.pid} 1 another-boot\n`);
    symlinkSync('sup.1', path.join(root, 'x-before', 'go'));
    expect((await journal.poll('before', { out: 0, err: 0 }, 0, soon())).status).toEqual({ state: 'lost' });
    await journal.kill('before', soon());
    expect((await journal.poll('before', { out: 0, err: 0 }, 0, soon())).status).toEqual({ state: 'lost' });
  });

  it('lists newest first, and prunes without forgetting', async () => {
    await run('true', { execId: 'list.1' });
    await run('exit 4', { execId: 'list.2' });
    expect((await journal.list(2, soon())).map((each) => [each.execId, each.status])).toEqual([
      ['list.2', exited(4)],
      ['list.1', exited(0)],
    ]);
    await journal.prune(soon());
    expect((await journal.poll('list.2', { out: 0, err: 0 }, 0, soon())).status).toEqual(exited(4));
    for (const execId of ['.', '..', 'x'.repeat(128)]) expect((await run('echo ran', { execId })).out).toBe('ran\n');
  });
});
