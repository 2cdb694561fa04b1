import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { SandboxCapabilities, SandboxProvider, SandboxRef } from '../../activities/sandbox/port.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { follow, LONG_MS, runIn, shell, smallSpec, soon, until } from '../support/sandbox-commands.ts';
import type { Bench } from './sandbox-parts.ts';
import { bytes, codeOf, inputParts, listed, networkParts, OWNER, savingParts, streamParts } from './sandbox-parts.ts';

const MIB = 1024 * 1024;

/** What the suite needs of an adapter. */
export interface SandboxUnderTest {
  provider: SandboxProvider;
  /** Another process with the same configuration, which the suite kills with SIGKILL. */
  another(): Promise<{ provider: SandboxProvider; kill(): Promise<void> }>;
  /** Size of the file that is streamed in and out; 64 MiB without it. */
  bigFileBytes?: number;
  close(): Promise<void>;
}

/**
 * Every adapter of the port passes these. `control`: of an adapter that passes them all in another place, only what goes
 * over the part of its wire that is different there, which makes, lists, pauses, saves and ends sandboxes.
 */
export function sandboxConformance(
  adapter: string,
  make: () => Promise<SandboxUnderTest>,
  scope: 'all' | 'control' = 'all',
): void {
  describe(`sandbox port: ${adapter}`, { timeout: LONG_MS * 2 }, () => {
    let under: SandboxUnderTest;
    let provider: SandboxProvider;
    let ref: SandboxRef;
    let can: SandboxCapabilities;
    let keys = 0;
    const fresh = async (change: Parameters<typeof smallSpec>[1] = {}): Promise<SandboxRef> => {
      keys += 1;
      return provider.create(smallSpec(OWNER, change), `key-${keys}`, soon());
    };
    const inFull = (name: string, parts: () => void): void => {
      if (scope === 'all') describe(name, parts);
    };
    const bench: Bench = {
      provider: () => provider,
      can: () => can,
      shared: () => ref,
      fresh,
      another: () => under.another(),
      bigFileBytes: () => under.bigFileBytes ?? 64 * MIB,
    };

    beforeAll(async () => {
      under = await make();
      provider = under.provider;
      can = await provider.capabilities();
      ref = await fresh({ env: { FROM_SPEC: 'spec' } });
    });

    afterAll(async () => {
      await under.close();
    });

    describe('life', () => {
      it('makes one sandbox per key, also when asked at the same time', async () => {
        const spec = smallSpec(OWNER);
        const refs = await Promise.all([1, 2, 3].map(() => provider.create(spec, 'same', soon())));
        expect(new Set(refs.map((each) => each.id)).size).toBe(1);
        const other = await provider.create(spec, 'other', soon());
        expect(other.id).not.toBe(refs[0]?.id);
        await shell(provider, other, 'echo kept > kept');
        expect(await provider.create(spec, 'other', soon())).toEqual(other);
        expect((await shell(provider, other, 'cat kept')).stdout).toBe('kept\n');
      });

      it('finishes a creation that a crash cut short', async () => {
        const spec = smallSpec(OWNER);
        const victim = await under.another();
        const lost = victim.provider.create(spec, 'cut', soon()).catch(() => undefined);
        await victim.kill();
        await lost;
        const made = await provider.create(spec, 'cut', soon());
        if ((await provider.get(made, soon()))?.state !== 'running') await provider.resume(made, soon());
        expect((await shell(provider, made, 'echo works')).stdout).toBe('works\n');
      });

      it('tells what it knows of a sandbox, and null for one that never was', async () => {
        const info = await provider.get(ref, soon());
        expect(info).toMatchObject({ ref, state: 'running', owner: OWNER, labels: { purpose: 'test' } });
        expect(info?.expiresAtMs).toBeGreaterThan(info?.createdAtMs ?? Infinity);
        const gone = await fresh();
        await provider.destroy(gone, soon());
        expect(await provider.get(gone, soon())).toBeNull();
      });

      it('lists by owner', async () => {
        const foreign = await provider.create(smallSpec('somebody else'), 'foreign', soon());
        const mine = (await listed(provider, OWNER)).map((info) => info.ref.id);
        expect(mine).toContain(ref.id);
        expect(mine).not.toContain(foreign.id);
        expect((await listed(provider, 'somebody else')).map((info) => info.ref.id)).toEqual([foreign.id]);
      });

      it('extends the lease', async () => {
        const before = await provider.get(ref, soon());
        await provider.extend(ref, 7_200_000, soon());
        const after = await provider.get(ref, soon());
        expect(after?.expiresAtMs).toBeGreaterThan((before?.expiresAtMs ?? 0) + 3_600_000);
      });

      it('pauses and resumes with its files; what ran is gone', async () => {
        const paused = await fresh();
        if (can.pause === 'none') {
          expect(await codeOf(provider.pause(paused, soon()))).toBe('sandbox_unsupported');
          return;
        }
        await shell(provider, paused, 'echo kept > kept; echo temporary > /tmp/kept');
        await provider.execStart(paused, { execId: 'long', argv: ['sleep', '600'], timeoutMs: 600_000 }, soon());
        expect(await provider.pause(paused, soon())).toBe(true);
        expect(await provider.pause(paused, soon())).toBe(false);
        expect((await provider.get(paused, soon()))?.state).toBe('paused');
        await provider.resume(paused, soon());
        expect((await provider.get(paused, soon()))?.state).toBe('running');
        expect((await shell(provider, paused, 'cat kept /tmp/kept')).stdout).toBe('kept\ntemporary\n');
        expect((await follow(provider, paused, 'long')).status).toEqual({ state: 'lost' });
        // The whole command: the listing has process ids and clock readings too, in which any three digits may come up.
        const running = (await shell(provider, paused, 'ps ax 2>/dev/null || cat /proc/*/cmdline')).stdout;
        expect(running).not.toMatch(/sleep[ \0]600(?!\d)/);
      });

      it('destroys once; calls on what is gone say so', async () => {
        const doomed = await fresh();
        await shell(provider, doomed, 'mkdir -p locked/in && touch locked/in/f && chmod 000 locked/in locked');
        await provider.execStart(doomed, { execId: 'long', argv: ['sleep', '600'], timeoutMs: 600_000 }, soon());
        expect(await provider.destroy(doomed, soon())).toBe(true);
        expect(await provider.destroy(doomed, soon())).toBe(false);
        expect(await provider.pause(doomed, soon())).toBe(false);
        const start = provider.execStart(doomed, { execId: 'x', argv: ['true'], timeoutMs: 1_000 }, soon());
        expect(await codeOf(start)).toBe('sandbox_not_found');
        expect(await codeOf(provider.execPoll(doomed, 'x', { out: 0, err: 0 }, 0, soon()))).toBe('sandbox_not_found');
        expect(await codeOf(provider.extend(doomed, 1, soon()))).toBe('sandbox_not_found');
        expect(await codeOf(provider.readFile(doomed, '/workspace/x', 1, soon()))).toBe('sandbox_not_found');
      });

      it('refuses references that are no ids of its own', async () => {
        for (const id of ['..', '../../etc', 'x/../y', '']) {
          const strange = { provider: provider.name, id, meta: {} };
          expect(await codeOf(provider.extend(strange, 1, soon()))).toMatch(/^sandbox_(invalid|not_found)$/);
          expect(await codeOf(provider.destroy(strange, soon()))).toMatch(/^(sandbox_(invalid|not_found)|no error)$/);
        }
        expect((await provider.get(ref, soon()))?.state).toBe('running');
      });
    });

    inFull('commands', () => {
      it('runs in /workspace with its own environment only', async () => {
        const script = 'pwd; echo "$HOME $FROM_SPEC $FROM_EXEC"; env | cut -d= -f1 | sort | tr "\\n" " "';
        const { status, stdout } = await shell(provider, ref, script, { env: { FROM_EXEC: 'exec' } });
        expect(status).toEqual({ state: 'exited', exitCode: 0, signal: null });
        const [cwd, values, names] = stdout.split('\n');
        expect(cwd).toBe('/workspace');
        expect(values).toBe('/workspace spec exec');
        const known = 'FROM_EXEC FROM_SPEC HOME LANG LONGHAUL_EXEC PATH PWD SHLVL TERM USER _'.split(' ');
        expect(
          names
            ?.trim()
            .split(' ')
            .filter((each) => !known.includes(each)),
        ).toEqual([]);
      });

      it('takes cwd, standard input and arguments as they are', async () => {
        const stdin = Uint8Array.from({ length: 100_000 }, (_value, index) => index % 256);
        const counted = await runIn(provider, ref, ['wc', '-c'], { stdin, cwd: '/tmp' });
        expect(counted.stdout.trim()).toBe('100000');
        const odd = ['a b', '', '$HOME', "it's", 'ä\n', '--', '*'];
        const shown = await runIn(provider, ref, ['printf', '[%s]', ...odd]);
        expect(shown.stdout).toBe(odd.map((each) => `[${each}]`).join(''));
        expect((await runIn(provider, ref, ['pwd'], { cwd: '/tmp' })).stdout).toBe('/tmp\n');
        expect((await runIn(provider, ref, ['cat'])).stdout).toBe('');
      });

      it('tells exit codes, signals and programs that do not exist', async () => {
        expect((await shell(provider, ref, 'exit 7')).status).toEqual({ state: 'exited', exitCode: 7, signal: null });
        const shot = (await shell(provider, ref, 'kill -9 $$')).status;
        expect(shot).toMatchObject({ state: 'exited', exitCode: 137 });
        expect(shot).toHaveProperty('signal', expect.stringMatching(/^SIG(KILL|9)$/));
        const missing = await runIn(provider, ref, ['no-such-program']);
        expect(missing.status).toMatchObject({ state: 'exited' });
        expect(missing.status).not.toMatchObject({ exitCode: 0 });
        expect(missing.stderr).toContain('no-such-program');
      });

      it('keeps both streams apart, byte for byte', async () => {
        const result = await shell(provider, ref, 'printf "\\0\\377out"; printf err >&2');
        expect(result.stderr).toBe('err');
        const poll = async (): Promise<Uint8Array> => {
          await provider.execStart(
            ref,
            { execId: 'binary', argv: ['printf', '\\000\\377\\200'], timeoutMs: 150_000 },
            soon(),
          );
          await follow(provider, ref, 'binary');
          return (await provider.execPoll(ref, 'binary', { out: 0, err: 0 }, 0, soon())).stdout;
        };
        expect([...(await poll())]).toEqual([0, 255, 128]);
      });

      it('lets a command open /dev/stdout and /dev/stderr', async () => {
        const result = await shell(provider, ref, 'echo one; echo two > /dev/stdout; echo three | tee /dev/stderr');
        expect(result.stdout).toBe('one\ntwo\nthree\n');
        expect(result.stderr).toBe('three\n');
      });

      it('gives output while the command runs, from any offset', async () => {
        const script = 'echo first; while [ ! -e go ]; do :; done; echo second';
        await provider.execStart(ref, { execId: 'stream', argv: ['bash', '-c', script], timeoutMs: 150_000 }, soon());
        let seen = '';
        await until('the first line', async () => {
          const poll = await provider.execPoll(ref, 'stream', { out: 0, err: 0 }, 1_000, soon());
          seen = Buffer.from(poll.stdout).toString();
          expect(poll.status).toEqual({ state: 'running' });
          return seen === 'first\n';
        });
        await provider.writeFile(ref, '/workspace/go', new Uint8Array(0), soon());
        const done = await follow(provider, ref, 'stream');
        expect(done).toMatchObject({ stdout: 'first\nsecond\n', status: { state: 'exited', exitCode: 0 } });
        const tail = await provider.execPoll(ref, 'stream', { out: 6, err: 0 }, 0, soon());
        expect(Buffer.from(tail.stdout).toString()).toBe('second\n');
      });

      it('hands out large output in full', async () => {
        const result = await shell(provider, ref, 'head -c 5000000 /dev/zero | tr "\\0" x; echo end >&2');
        expect(result.stdout).toBe('x'.repeat(5_000_000));
        expect(result.stderr).toBe('end\n');
      });

      it('tells a command that was never started', async () => {
        for (const execId of ['never', '.', '..', '.hidden']) {
          const poll = provider.execPoll(ref, execId, { out: 3, err: 4 }, 0, soon());
          expect(await poll).toMatchObject({ status: { state: 'absent' }, next: { out: 3, err: 4 } });
        }
        expect(await codeOf(provider.execPoll(ref, '../x', { out: 0, err: 0 }, 0, soon()))).toBe('sandbox_invalid');
      });

      it('runs ids that look like directories', async () => {
        for (const execId of ['.', '..', '.hidden', 'x'.repeat(128)]) {
          expect((await runIn(provider, ref, ['echo', 'ran'], { execId })).stdout).toBe('ran\n');
        }
      });

      it('starts an id once, however often and from wherever it is asked', async () => {
        const other = await under.another();
        const spec = { execId: 'once', argv: ['bash', '-c', 'echo ran >> once; sleep 0.2'], timeoutMs: 150_000 };
        const starters = [provider, provider, other.provider, other.provider];
        await Promise.all(starters.map((each) => each.execStart(ref, spec, soon())));
        await follow(provider, ref, 'once');
        await provider.execStart(ref, spec, soon());
        await follow(other.provider, ref, 'once');
        await other.kill();
        expect((await shell(provider, ref, 'cat once')).stdout).toBe('ran\n');
      });

      it('goes on when the process that started it is killed', async () => {
        const victim = await under.another();
        const script = 'echo begun; while [ ! -e on ]; do :; done; echo ended; exit 3';
        await victim.provider.execStart(
          ref,
          { execId: 'orphan', argv: ['bash', '-c', script], timeoutMs: 150_000 },
          soon(),
        );
        await victim.kill();
        const heir = await under.another();
        expect((await heir.provider.execPoll(ref, 'orphan', { out: 0, err: 0 }, 0, soon())).status.state).toBe(
          'running',
        );
        await heir.provider.writeFile(ref, '/workspace/on', new Uint8Array(0), soon());
        const done = await follow(heir.provider, ref, 'orphan');
        expect(done).toMatchObject({ stdout: 'begun\nended\n', status: { state: 'exited', exitCode: 3 } });
        await heir.kill();
      });

      it('never runs twice when starters are killed at any point', async () => {
        const raced = await fresh();
        for (let round = 0; round < 8; round += 1) {
          const execId = `race-${round}`;
          const spec = { execId, argv: ['bash', '-c', `echo ran >> ${execId}`], timeoutMs: 150_000 };
          const victim = await under.another();
          await victim.provider.get(raced, soon());
          const started = victim.provider.execStart(raced, spec, soon()).catch(() => undefined);
          if (round % 4 !== 0) await delay(round % 4);
          await victim.kill();
          await started;
          await provider.execStart(raced, spec, soon());
          expect((await follow(provider, raced, execId)).status).toMatchObject({ state: 'exited', exitCode: 0 });
          expect((await shell(provider, raced, `cat ${execId}`)).stdout).toBe('ran\n');
        }
      });

      it('enforces the time limit although nobody polls', async () => {
        const script = '(setsid sleep 601 &) ; sleep 602';
        await provider.execStart(ref, { execId: 'slow', argv: ['bash', '-c', script], timeoutMs: 1_000 }, soon());
        await until('its processes are gone', async () => {
          const { stdout } = await shell(provider, ref, 'cat /proc/*/cmdline 2>/dev/null | tr "\\0" " "');
          return !/sleep 60[12]/.test(stdout);
        });
        expect((await follow(provider, ref, 'slow')).status).toEqual({ state: 'killed', reason: 'timeout' });
      });

      it('kills the whole tree of one command and nothing else', async () => {
        await provider.execStart(ref, { execId: 'other', argv: ['sleep', '605'], timeoutMs: 600_000 }, soon());
        const script = 'trap "" TERM; (setsid sleep 603 &); sleep 604 & echo up; wait';
        await provider.execStart(ref, { execId: 'tree', argv: ['bash', '-c', script], timeoutMs: 600_000 }, soon());
        await until('it is up', async () => {
          const poll = await provider.execPoll(ref, 'tree', { out: 0, err: 0 }, 1_000, soon());
          return poll.stdout.length > 0;
        });
        // One that was started may still be on its way to the program it becomes.
        const running = async (): Promise<string> =>
          (await shell(provider, ref, 'cat /proc/*/cmdline 2>/dev/null | tr "\\0" " "')).stdout;
        await until('the other one runs', async () => (await running()).includes('sleep 605'));
        await provider.execKill(ref, 'tree', soon());
        await provider.execKill(ref, 'tree', soon());
        expect((await follow(provider, ref, 'tree')).status).toEqual({ state: 'killed', reason: 'signal' });
        const stdout = await running();
        expect(stdout).not.toMatch(/sleep 60[34]/);
        expect(stdout).toContain('sleep 605');
        await provider.execKill(ref, 'other', soon());
        await provider.execKill(ref, 'never-started', soon());
      });

      it('never starts a command that was killed before', async () => {
        const spec = { execId: 'forbidden', argv: ['touch', '/workspace/forbidden'], timeoutMs: 150_000 };
        await provider.execKill(ref, 'forbidden', soon());
        await provider.execStart(ref, spec, soon());
        expect((await follow(provider, ref, 'forbidden')).status).toEqual({ state: 'killed', reason: 'signal' });
        expect(await provider.stat(ref, '/workspace/forbidden', soon())).toBeNull();
      });

      it('kills what writes too much', async () => {
        await provider.execStart(ref, { execId: 'flood', argv: ['yes'], timeoutMs: 150_000 }, soon());
        const signal = soon();
        let next = { out: 0, err: 0 };
        let state = 'running';
        let isDrained = false;
        while (state === 'running' || !isDrained) {
          const poll = await provider.execPoll(ref, 'flood', next, 5_000, signal);
          isDrained = poll.stdout.length === 0;
          next = poll.next;
          state = poll.status.state;
          if (state !== 'running') expect(poll.status).toEqual({ state: 'killed', reason: 'output_limit' });
        }
        expect(next.out).toBeGreaterThanOrEqual(LIMITS.execOutputBytes);
      });

      it('lets one command talk to the server another one left behind', async () => {
        const serve = `perl -MIO::Socket::INET -e 'my $s = IO::Socket::INET->new(Listen => 5, LocalAddr => "127.0.0.1", LocalPort => 8099, ReuseAddr => 1) or die; while (my $c = $s->accept) { print $c "hello\\n"; close $c }'`;
        await shell(provider, ref, `${serve} > /dev/null 2>&1 &`);
        const ask = `perl -MIO::Socket::INET -e 'my $s = IO::Socket::INET->new("127.0.0.1:8099") or exit 1; print <$s>'`;
        await until('the server answers', async () => (await shell(provider, ref, ask)).stdout === 'hello\n');
      });

      it('refuses a command on a paused sandbox', async () => {
        if (can.pause === 'none') return;
        const paused = await fresh();
        await provider.pause(paused, soon());
        const start = provider.execStart(paused, { execId: 'x', argv: ['true'], timeoutMs: 1_000 }, soon());
        expect(await codeOf(start)).toMatch(/^sandbox_(lost|unavailable)$/);
        const poll = provider.execPoll(paused, 'x', { out: 0, err: 0 }, 0, soon());
        // Where the journal lies inside, nobody can read it before the sandbox is woken.
        const told = await poll.then(({ status }) => status.state).catch(() => codeOf(poll));
        expect(told).toMatch(/^(absent|sandbox_lost)$/);
      });
    });

    inFull('files', () => {
      it('reads back what it wrote, whatever the bytes', async () => {
        const content = Uint8Array.from({ length: 3_000_000 }, (_value, index) => (index * 7919) % 256);
        await provider.writeFile(ref, '/workspace/deep/er/data.bin', content, soon());
        const back = await provider.readFile(ref, '/workspace/deep/er/data.bin', 4_000_000, soon());
        expect(Buffer.compare(Buffer.from(back), Buffer.from(content))).toBe(0);
        const { stdout } = await shell(
          provider,
          ref,
          'wc -c < deep/er/data.bin; echo more >> deep/er/data.bin && echo writable',
        );
        expect(stdout).toBe('3000000\nwritable\n');
      });

      it('bounds a read', async () => {
        await provider.writeFile(ref, '/workspace/long', bytes('0123456789'), soon());
        expect(Buffer.from(await provider.readFile(ref, '/workspace/long', 4, soon())).toString()).toBe('0123');
        expect((await provider.readFile(ref, '/workspace/long', 0, soon())).length).toBe(0);
      });

      it('handles odd names', async () => {
        for (const name of ["it's", 'a b', '-rf', '$(id)', 'ä', '*', 'line\nbreak']) {
          await provider.writeFile(ref, `/workspace/odd/${name}`, bytes(name), soon());
          expect(Buffer.from(await provider.readFile(ref, `/workspace/odd/${name}`, 100, soon())).toString()).toBe(
            name,
          );
        }
        const names = (await provider.listDir(ref, '/workspace/odd', soon())).map((each) => each.path);
        expect(names).toContain('/workspace/odd/line\nbreak');
        expect(names).toHaveLength(7);
      });

      it('replaces a file in one step and keeps its permissions', async () => {
        await shell(provider, ref, 'echo old > tool; chmod 755 tool');
        const look = 'stat -c %s swap 2>/dev/null || echo none';
        const reader = `rm -f stop; touch reads; while [ ! -e stop ]; do ${look}; done | sort -u`;
        await provider.writeFile(ref, '/workspace/swap', bytes('a'.repeat(1_000)), soon());
        await provider.execStart(ref, { execId: 'reader', argv: ['bash', '-c', reader], timeoutMs: 150_000 }, soon());
        await until('it reads', async () => (await provider.stat(ref, '/workspace/reads', soon())) !== null);
        for (let round = 0; round < 20; round += 1) {
          await provider.writeFile(ref, '/workspace/swap', bytes('b'.repeat(1_000 + (round % 2) * 1_000)), soon());
        }
        await provider.writeFile(ref, '/workspace/stop', bytes(''), soon());
        const { stdout } = await follow(provider, ref, 'reader');
        expect(stdout).toMatch(/^(1000|2000)$/m);
        expect(
          stdout
            .trim()
            .split('\n')
            .filter((each) => each !== '1000' && each !== '2000'),
        ).toEqual([]);
        await provider.writeFile(ref, '/workspace/tool', bytes('new'), soon());
        expect((await shell(provider, ref, 'stat -c %a tool; cat tool')).stdout).toBe('755\nnew');
        expect((await shell(provider, ref, 'ls -A | grep -c "tool\\|swap"')).stdout).toBe('2\n');
      });

      it('says what is missing and what is no file', async () => {
        expect(await provider.stat(ref, '/workspace/missing', soon())).toBeNull();
        expect(await provider.stat(ref, '/workspace/missing/below', soon())).toBeNull();
        expect(await codeOf(provider.readFile(ref, '/workspace/missing', 1, soon()))).toBe('sandbox_invalid');
        await shell(provider, ref, 'mkdir -p folder; echo x > plain');
        expect(await codeOf(provider.readFile(ref, '/workspace/folder', 10, soon()))).toBe('sandbox_invalid');
        expect(await codeOf(provider.writeFile(ref, '/workspace/folder', bytes('x'), soon()))).toBe('sandbox_invalid');
        expect(await codeOf(provider.writeFile(ref, '/workspace/plain/x', bytes('x'), soon()))).toBe('sandbox_invalid');
        expect(await codeOf(provider.listDir(ref, '/workspace/plain', soon()))).toBe('sandbox_invalid');
        expect(await codeOf(provider.readFile(ref, 'workspace/plain', 1, soon()))).toBe('sandbox_invalid');
      });

      it('describes files and directories', async () => {
        await shell(provider, ref, 'mkdir -p tree/sub; printf 12345 > tree/five; ln -s five tree/link');
        expect(await provider.stat(ref, '/workspace/tree/five', soon())).toMatchObject({ type: 'file', sizeBytes: 5 });
        expect(await provider.stat(ref, '/workspace/tree', soon())).toMatchObject({ type: 'directory' });
        expect((await provider.stat(ref, '/workspace/tree/five', soon()))?.mtimeMs).toBeGreaterThan(1_700_000_000_000);
        const entries = await provider.listDir(ref, '/workspace/tree', soon());
        expect(entries.map((each) => [each.path, each.type])).toEqual([
          ['/workspace/tree/five', 'file'],
          ['/workspace/tree/link', 'symlink'],
          ['/workspace/tree/sub', 'directory'],
        ]);
        await shell(provider, ref, 'mkdir tree/empty');
        expect(await provider.listDir(ref, '/workspace/tree/empty', soon())).toEqual([]);
      });

      it('follows links inside the sandbox', async () => {
        await shell(provider, ref, 'mkdir -p real; ln -sfn real alias; ln -sf ../tmp/target out; echo t > /tmp/target');
        await provider.writeFile(ref, '/workspace/alias/new', bytes('through'), soon());
        expect((await shell(provider, ref, 'cat real/new')).stdout).toBe('through');
        expect(Buffer.from(await provider.readFile(ref, '/workspace/out', 10, soon())).toString()).toBe('t\n');
      });
    });

    savingParts(bench);
    if (scope === 'all') for (const parts of [inputParts, streamParts, networkParts]) parts(bench);

    it('says what it enforces', async () => {
      const found = await provider.capabilities();
      expect(['enforced', 'watched', 'unavailable']).toContain(found.limits.memory);
      expect(found.limits.output).toBe('enforced');
      expect(found.notes.length).toBeGreaterThan(0);
    });
  });
}
