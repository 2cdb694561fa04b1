import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readDockerOptions } from '../../activities/sandbox/docker/config.ts';
import { DockerProvider, type DockerOptions } from '../../activities/sandbox/docker/provider.ts';
import type { SandboxProvider, SandboxRef } from '../../activities/sandbox/port.ts';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { listenInside } from '../../egress/namespace/porter.ts';
import { codeOf, listed } from '../conformance/sandbox-parts.ts';
import { sandboxConformance } from '../conformance/sandbox.suite.ts';
import { engineObstacle, startEngine, type TestEngine } from '../support/docker-engine.ts';
import { follow, LONG_MS, runIn, shell, smallSpec, soon, until } from '../support/sandbox-commands.ts';
import { startSandboxProcess, type SandboxProcess } from '../support/sandbox-process.ts';

const obstacle = engineObstacle();
const OWNER = 'killed';

const MIB = 1024 * 1024;
const EPERM = 1;
const EFAULT = 14;
const EINVAL = 22;
const ENOSYS = 38;
const NEW_USER = 0x10000000;
const arch = process.arch === 'arm64' ? 'arm64' : 'x64';

/** The kernel's numbers of what no program without capabilities needs. */
const CALLS: Record<string, Record<'x64' | 'arm64', number>> = {
  unshare: { x64: 272, arm64: 97 },
  setns: { x64: 308, arm64: 268 },
  mount: { x64: 165, arm64: 40 },
  umount2: { x64: 166, arm64: 39 },
  pivot_root: { x64: 155, arm64: 41 },
  chroot: { x64: 161, arm64: 51 },
  open_tree: { x64: 428, arm64: 428 },
  move_mount: { x64: 429, arm64: 429 },
  fsopen: { x64: 430, arm64: 430 },
  mount_setattr: { x64: 442, arm64: 442 },
  keyctl: { x64: 250, arm64: 219 },
  add_key: { x64: 248, arm64: 217 },
  request_key: { x64: 249, arm64: 218 },
  bpf: { x64: 321, arm64: 280 },
  perf_event_open: { x64: 298, arm64: 241 },
  userfaultfd: { x64: 323, arm64: 282 },
  io_uring_setup: { x64: 425, arm64: 425 },
  io_uring_enter: { x64: 426, arm64: 426 },
  io_uring_register: { x64: 427, arm64: 427 },
  kexec_load: { x64: 246, arm64: 104 },
  kexec_file_load: { x64: 320, arm64: 294 },
  init_module: { x64: 175, arm64: 105 },
  finit_module: { x64: 313, arm64: 273 },
  delete_module: { x64: 176, arm64: 106 },
  open_by_handle_at: { x64: 304, arm64: 265 },
  name_to_handle_at: { x64: 303, arm64: 264 },
  fanotify_init: { x64: 300, arm64: 262 },
  pidfd_getfd: { x64: 438, arm64: 438 },
  quotactl: { x64: 179, arm64: 60 },
  swapon: { x64: 167, arm64: 224 },
  reboot: { x64: 169, arm64: 142 },
  syslog: { x64: 103, arm64: 116 },
  acct: { x64: 163, arm64: 89 },
  clock_settime: { x64: 227, arm64: 112 },
  settimeofday: { x64: 164, arm64: 170 },
};

/** Says so when there is anything behind an address. */
const reach = (address: string): string =>
  `perl -MIO::Socket::INET -e 'IO::Socket::INET->new(PeerAddr => "${address}", Timeout => 3) and print "reached"'`;

/** Whether any process of this machine belongs to a container of these. */
function livesOn(containers: string[]): boolean {
  return readdirSync('/proc').some((pid) => {
    try {
      const groups = /^\d+$/.test(pid) ? readFileSync(`/proc/${pid}/cgroup`, 'utf8') : '';
      return containers.some((each) => groups.includes(each));
    } catch {
      return false;
    }
  });
}

/** The limits of a process's control groups, of either version. */
function limitsOf(pid: number): { memory: number; processes: number; cpus: number } {
  const groups = new Map(
    readFileSync(`/proc/${pid}/cgroup`, 'utf8')
      .trim()
      .split('\n')
      .flatMap((line) => {
        const [, controllers = '', folder = ''] = line.split(':');
        return controllers.split(',').map((controller): [string, string] => [controller, folder]);
      }),
  );
  const read = (controller: string, file: string): string => {
    const first = path.join('/sys/fs/cgroup', controller, groups.get(controller) ?? '/none', file);
    return readFileSync(
      existsSync(first) ? first : path.join('/sys/fs/cgroup', groups.get('') ?? '', file),
      'utf8',
    ).trim();
  };
  const isFirst = groups.has('memory');
  const [quota = 0, period = 1] = isFirst
    ? [Number(read('cpu', 'cpu.cfs_quota_us')), Number(read('cpu', 'cpu.cfs_period_us'))]
    : read('', 'cpu.max').split(' ').map(Number);
  return {
    memory: Number(read('memory', isFirst ? 'memory.limit_in_bytes' : 'memory.max')),
    processes: Number(read('pids', 'pids.max')),
    cpus: quota / period,
  };
}

if (obstacle !== null) {
  it.skip(`docker sandboxes: SKIPPED, ${obstacle}`, () => undefined);
} else {
  let engine: TestEngine;
  const rootDir = mkdtempSync(path.join(os.tmpdir(), 'longhaul-docker-'));
  const processes: SandboxProcess[] = [];
  const optionsOf = (change: Partial<DockerOptions> = {}): DockerOptions => {
    const { host, image } = engine;
    return { host, image, pull: 'never', user: '1000:1000', storageQuota: false, ...change };
  };
  const worker = (): SandboxProcess => {
    const started = startSandboxProcess({ rootDir, uid: null, provider: { name: 'docker', docker: optionsOf() } });
    processes.push(started);
    return started;
  };

  beforeAll(async () => {
    engine = await startEngine();
  }, LONG_MS);
  afterAll(async () => {
    for (const each of processes) await each.kill();
    await engine.stop();
    rmSync(rootDir, { recursive: true });
  }, LONG_MS);

  sandboxConformance('docker', () => {
    const { provider } = worker();
    return Promise.resolve({
      provider,
      another: () => Promise.resolve(worker()),
      close: async () => {
        for (const owner of ['conformance', 'somebody else']) {
          const all = await listed(provider, owner);
          await Promise.all(all.map((info) => provider.destroy(info.ref, soon())));
        }
      },
    });
  });

  describe('docker sandboxes', { timeout: LONG_MS }, () => {
    let provider: SandboxProvider;
    let ref: SandboxRef;
    const perl = async (where: SandboxRef, script: string): Promise<string> =>
      (await runIn(provider, where, ['perl', '-e', script])).stdout;
    /** What the kernel answers to a call without anything sensible in it. */
    const errorOf = async (where: SandboxRef, call: number, argument: number): Promise<number> =>
      Number(await perl(where, `print syscall(${call}, ${argument}, 0, 0, 0, 0) < 0 ? $! + 0 : 0`));
    beforeAll(async () => {
      provider = new DockerProvider(optionsOf());
      ref = await provider.create(smallSpec('inside'), 'inside', soon());
    }, LONG_MS);

    it('gives programs inside nothing of the machine', async () => {
      const look = [
        'id -u; grep -E "^(CapEff|CapBnd|NoNewPrivs|Seccomp):" /proc/self/status | tr -s "\\t" " "',
        'sed 1,2d /proc/net/dev | cut -d: -f1 | tr -d " "; cat /proc/1/environ | tr "\\0" "\\n" | grep -c LONGHAUL',
        'find / -xdev -type s 2>/dev/null | wc -l',
        'for f in /etc/passwd /usr/bin/cat /var/lib/longhaul/lease; do (: >> $f) 2>/dev/null && echo "wrote $f"; done',
        'cat /var/lib/longhaul/lease 2>/dev/null && echo "read the lease"',
        'kill -9 1 && echo alive',
      ];
      const { stdout } = await shell(provider, ref, look.join('; '));
      const zero = '0000000000000000';
      const expected = [
        '1000',
        `CapEff: ${zero}`,
        `CapBnd: ${zero}`,
        'NoNewPrivs: 1',
        'Seccomp: 2',
        'lo',
        '0',
        '0',
        'alive',
      ];
      expect(stdout.trim().split('\n')).toEqual(expected);
      for (const address of ['169.254.169.254:80', '1.1.1.1:443', '10.0.0.1:22']) {
        expect([address, (await shell(provider, ref, reach(address))).stdout]).toEqual([address, '']);
      }
    });

    it('refuses vsock and other sockets past the network, and the calls a program without capabilities has no use for', async () => {
      const [closed, open] = [
        [40, 17, 38, 31, 29, 44],
        [1, 2, 10, 16],
      ];
      const flags = [0x20000, 0x2000000, NEW_USER, 0x20000000, 0x40000000];
      const lines = [
        ...[...closed, ...open].map(
          (each) => `my $s${each}; report(socket($s${each}, ${each}, ${each === 16 ? 3 : 1}, 0))`,
        ),
        ...Object.entries(CALLS).map(([name, n]) => `report(called(${n[arch]}, ${name === 'unshare' ? NEW_USER : 0}))`),
        ...flags.map((flag) => `report(called(${arch === 'x64' ? 56 : 220}, ${flag | 17}))`),
        // What C libraries take for a kernel that does not have it, and then use clone.
        'report(called(435, 0))',
      ];
      const script = `sub called { return syscall($_[0], $_[1], 0, 0, 0, 0) >= 0 } sub report { print $_[0] ? 0 : $! + 0, "\n" } ${lines.join('; ')}`;
      const answers = (await perl(ref, script)).trim().split('\n').map(Number);
      const asked = [
        ...closed.map((family) => [`family ${family}`, EPERM]),
        ...open.map((family) => [`family ${family}`, 0]),
        ...Object.keys(CALLS).map((name) => [name, EPERM]),
        ...flags.map((flag) => [`clone ${flag}`, EPERM]),
        ['clone3', ENOSYS],
      ];
      expect(asked.map(([name], index) => [name, answers[index]])).toEqual(asked);
      expect((await provider.capabilities()).notes).toContain('seccomp profile of Longhaul');
    });

    it('lets programs have threads, processes, timers, files and sockets', async () => {
      const script = `
        const { Worker } = require('node:worker_threads');
        const { execFileSync } = require('node:child_process');
        const { createServer, connect } = require('node:net');
        const { createHash, randomBytes } = require('node:crypto');
        const fs = require('node:fs');
        const squared = (n) => new Promise((resolve, reject) =>
          new Worker('const { parentPort, workerData } = require("node:worker_threads"); parentPort.postMessage(workerData ** 2)',
            { eval: true, workerData: n }).once('message', resolve).once('error', reject));
        (async () => {
          const squares = await Promise.all([1, 2, 3, 4].map(squared));
          fs.mkdirSync('a/b', { recursive: true });
          fs.writeFileSync('a/b/c', randomBytes(1000));
          fs.symlinkSync('b/c', 'a/link');
          fs.renameSync('a/b/c', 'a/b/d');
          await fs.promises.copyFile('a/b/d', 'a/e');
          fs.watch('a').close();
          const hash = (file) => createHash('sha256').update(fs.readFileSync(file)).digest('hex');
          const echoed = await new Promise((resolve) => {
            const server = createServer((socket) => socket.pipe(socket)).listen(0, '127.0.0.1', () => {
              const socket = connect(server.address().port, '127.0.0.1', () => socket.end('over tcp'));
              socket.on('data', (data) => resolve(data.toString())).on('close', () => server.close());
            });
          });
          await new Promise((resolve) => setTimeout(resolve, 1));
          console.log(squares.join(), hash('a/b/d') === hash('a/e'), echoed, execFileSync('echo', ['child']).toString().trim());
        })();`;
      const node = await runIn(provider, ref, ['node', '-e', script]);
      expect([node.stdout, node.stderr]).toEqual(['1,4,9,16 true over tcp child\n', '']);
      const pipes = await shell(
        provider,
        ref,
        'mkfifo f; (seq 1000 > f &); sort -n --parallel=2 f | tail -n 1; touch -d @0 f',
      );
      expect(pipes.stdout).toBe('1000\n');
    });

    it('takes the operator’s seccomp profile in place of its own', async () => {
      const seccompFile = path.join(rootDir, 'profile.json');
      writeFileSync(
        seccompFile,
        JSON.stringify({
          defaultAction: 'SCMP_ACT_ALLOW',
          syscalls: [{ names: ['uname'], action: 'SCMP_ACT_ERRNO', errnoRet: 71 }],
        }),
      );
      const env = { LONGHAUL_DOCKER_HOST: engine.host, LONGHAUL_DOCKER_SECCOMP_FILE: seccompFile };
      const theirs = new DockerProvider(optionsOf({ ...readDockerOptions(env), image: engine.image, pull: 'never' }));
      const made = await theirs.create(smallSpec('inside'), 'their-profile', soon());
      expect(await errorOf(made, arch === 'x64' ? 63 : 160, 0)).toBe(71);
      expect(await errorOf(ref, arch === 'x64' ? 63 : 160, 0)).toBe(EFAULT);
      // Refused by ours with another number before its arguments are looked at.
      expect(await errorOf(made, 435, 0)).toBe(EINVAL);
      expect((await theirs.capabilities()).notes).toContain('seccomp profile of the operator');
      await theirs.destroy(made, soon());
      const missing = new DockerProvider(optionsOf({ seccompFile: path.join(rootDir, 'none.json') }));
      const refused = missing.create(smallSpec('inside'), 'no-profile', soon());
      await expect(refused).rejects.toMatchObject({ code: 'setup_required', field: 'LONGHAUL_DOCKER_SECCOMP_FILE' });
    });

    it('gives the container the resources it was asked for', async () => {
      const spec = smallSpec('inside', { cpus: 0.5, memoryBytes: 160 * MIB, pids: 48 });
      const made = await provider.create(spec, 'resources', soon());
      const { HostConfig } = await engine.ask<{ HostConfig: Record<string, unknown> }>(`/containers/${made.id}/json`);
      // Beside what the programs may have, there is room for those that look after them.
      expect(HostConfig).toMatchObject({ Memory: 160 * MIB, MemorySwap: 160 * MIB, NanoCpus: 5e8, PidsLimit: 48 + 64 });
      const pid = (await engine.ask<{ State: { Pid: number } }>(`/containers/${made.id}/json`)).State.Pid;
      expect(limitsOf(pid)).toEqual({ memory: 160 * MIB, processes: 112, cpus: 0.5 });
      const hog = `my $n = 400 << 20; my $x = "x" x $n; print "KEPT"`;
      const { status, stdout } = await runIn(provider, made, ['perl', '-e', hog]);
      expect([status, stdout]).toEqual([{ state: 'killed', reason: 'memory_limit' }, '']);
      expect((await shell(provider, made, 'echo usable')).stdout).toBe('usable\n');
      await provider.destroy(made, soon());
    });

    it('reaches the listener in its own network, and no other sandbox does', async () => {
      const other = await provider.create(smallSpec('inside'), 'other', soon());
      const point = await provider.egressPoint(ref, soon());
      const server = await listenInside(point!, 3128);
      server.on('connection', (socket) => socket.end('the broker\n').on('error', () => undefined));
      const ask = `perl -MIO::Socket::INET -e 'my $s = IO::Socket::INET->new("127.0.0.1:3128") or exit 1; print <$s>'`;
      expect((await shell(provider, ref, ask)).stdout).toBe('the broker\n');
      expect((await shell(provider, other, ask)).status).toMatchObject({ exitCode: 1 });
      server.close();
      await once(server, 'close');
      await provider.destroy(other, soon());
    });

    it('keeps the limits of memory, processes and disk', async () => {
      const big = await runIn(provider, ref, ['perl', '-e', 'my $x = "a" x 600_000_000; print length $x']);
      expect(big.status).toEqual({ state: 'killed', reason: 'memory_limit' });
      const forks = 'for i in $(seq 400); do sleep 5 & done 2>/dev/null; ls /proc | grep -c "^[0-9]"';
      // While there is no process left to fork, nobody can ask the journal either: that is to be tried again.
      let counted = '';
      await until('the processes end', async () => {
        try {
          counted = (await runIn(provider, ref, ['bash', '-c', forks], { execId: 'forks' })).stdout;
          return true;
        } catch (error) {
          if (error instanceof LonghaulError && error.retryable) return false;
          throw error;
        }
      });
      expect(Number(counted.trim() || '0')).toBeLessThanOrEqual(128);
      await provider.pause(ref, soon());
      await provider.resume(ref, soon());
      const fill = 'for i in $(seq 200); do head -c 1000000 /dev/zero > fill.$i; sleep 0.02; done; sleep 100';
      expect((await shell(provider, ref, fill)).status).toEqual({ state: 'killed', reason: 'disk_limit' });
    });

    it('says what is wrong with the engine or the image', async () => {
      const nowhere = new DockerProvider(optionsOf({ host: 'unix:///no/such/socket' }));
      expect(await codeOf(nowhere.capabilities())).toBe('sandbox_unavailable');
      expect(await codeOf(nowhere.create(smallSpec('x'), 'x', soon()))).toBe('sandbox_unavailable');
      const missing = provider.create(smallSpec('inside', { image: 'no-such-image:1' }), 'missing', soon());
      await expect(missing).rejects.toMatchObject({ code: 'sandbox_invalid', field: 'image' });
      const pulling = new DockerProvider(optionsOf({ pull: 'missing' }));
      const unreachable = pulling.create(smallSpec('inside', { image: '127.0.0.1:1/none:1' }), 'pulled', soon());
      expect(await codeOf(unreachable)).toMatch(/^sandbox_(invalid|unavailable)$/);
      const found = (await provider.capabilities()).notes;
      expect(found.join('\n')).toContain('user 1000:1000, no capabilities');
    });

    it('asks an engine about itself once in a while, and again when it was away', async () => {
      let asked = 0;
      const between = path.join(rootDir, 'between');
      const open = new Set<Socket>();
      const listen = async (): Promise<Server> => {
        const server = createServer((client) => {
          const upstream = connect(new URL(engine.host).pathname);
          for (const each of [client, upstream]) {
            open.add(each);
            each.on('error', () => undefined).on('close', () => open.delete(each));
          }
          client.on('data', (data) => (asked += data.toString('latin1').match(/^GET \S+\/info /gm)?.length ?? 0));
          client.pipe(upstream).pipe(client);
        }).listen(between);
        await once(server, 'listening');
        return server;
      };
      const close = async (server: Server): Promise<void> => {
        server.close();
        for (const each of open) each.destroy();
        await once(server, 'close');
      };
      const first = await listen();
      const behind = new DockerProvider(optionsOf({ host: `unix://${between}` }));
      const told = await Promise.all([behind.capabilities(), behind.capabilities()]);
      expect(await behind.capabilities()).toEqual(told[0]);
      expect(asked).toBe(1);
      await close(first);
      expect(await codeOf(behind.get(ref, soon()))).toBe('sandbox_unavailable');
      expect(await codeOf(behind.capabilities())).toBe('sandbox_unavailable');
      const second = await listen();
      expect(await behind.capabilities()).toEqual(told[0]);
      expect(asked).toBe(2);
      await close(second);
    });

    it('pauses once although the worker is killed meanwhile, and loses no file', async () => {
      for (let round = 0; round < 3; round += 1) {
        const made = await provider.create(smallSpec(OWNER), `pause-${round}`, soon());
        await shell(provider, made, 'echo kept > kept');
        const victim = worker();
        await victim.provider.get(made, soon());
        const cut = victim.provider.pause(made, soon()).catch(() => undefined);
        if (round > 0) await delay(round * 15);
        await victim.kill();
        await cut;
        await provider.pause(made, soon());
        expect((await provider.get(made, soon()))?.state).toBe('paused');
        await provider.resume(made, soon());
        expect((await shell(provider, made, 'cat kept')).stdout).toBe('kept\n');
        await provider.destroy(made, soon());
      }
    });

    it('tells a command as lost whose engine was killed, and runs it no second time', async () => {
      const made = await provider.create(smallSpec(OWNER), 'engine-exec', soon());
      const spec = { execId: 'once', argv: ['bash', '-c', 'echo ran >> once; sleep 600'], timeoutMs: 600_000 };
      await provider.execStart(made, spec, soon());
      await until('it ran', async () => (await provider.stat(made, '/workspace/once', soon())) !== null);
      const ended = runIn(provider, made, ['echo', 'done'], { execId: 'before' });
      expect((await ended).stdout).toBe('done\n');
      const waiting = codeOf(provider.execPoll(made, 'once', { out: 0, err: 0 }, 60_000, soon()));
      const { Id: container } = await engine.ask<{ Id: string }>(`/containers/${made.id}/json`);
      await engine.kill();
      expect(await waiting).toBe('sandbox_unavailable');
      expect(await codeOf(provider.get(made, soon()))).toBe('sandbox_unavailable');
      await engine.start();
      await until('the engine ended what it lost', async () => (await provider.get(made, soon()))?.state === 'stopped');
      expect((await follow(provider, made, 'once')).status).toEqual({ state: 'lost' });
      await until('nothing of it is left', () => Promise.resolve(!livesOn([container])));
      await provider.resume(made, soon());
      await provider.execStart(made, spec, soon());
      expect((await follow(provider, made, 'once')).status).toEqual({ state: 'lost' });
      expect((await shell(provider, made, 'cat once')).stdout).toBe('ran\n');
      expect(await follow(provider, made, 'before')).toMatchObject({ stdout: 'done\n', status: { state: 'exited' } });
      await provider.destroy(made, soon());
    });

    it('leaves no orphan when the engine is killed while it makes, starts, saves or pauses one', async () => {
      const kept = await provider.create(smallSpec(OWNER), 'engine-kept', soon());
      await shell(provider, kept, 'echo kept > kept; head -c 5000000 /dev/urandom > r; sha256sum r > sum');
      const spec = { execId: 'cut', argv: ['bash', '-c', 'echo ran >> ran'], timeoutMs: 60_000 };
      const cuts: (() => Promise<unknown>)[][] = [
        [() => provider.create(smallSpec(OWNER), 'engine-cut', soon()), () => provider.execStart(kept, spec, soon())],
        [() => provider.snapshot(kept, 'engine-cut', soon())],
        [() => provider.pause(kept, soon())],
      ];
      for (const cut of cuts) {
        const lost = Promise.allSettled(cut.map((each) => each()));
        // Early: an engine killed while containerd starts a container takes half a minute to find out.
        await delay(20);
        await engine.kill();
        await lost;
        await engine.start();
        await until('it is there again', async () => (await provider.get(kept, soon())) !== null);
        if ((await provider.get(kept, soon()))?.state !== 'running') await provider.resume(kept, soon());
      }
      const again = await provider.create(smallSpec(OWNER), 'engine-cut', soon());
      if ((await provider.get(again, soon()))?.state !== 'running') await provider.resume(again, soon());
      expect((await shell(provider, again, 'echo works')).stdout).toBe('works\n');
      // Under its id the command ran once or was lost on its way; asking again changes neither.
      await provider.execStart(kept, spec, soon());
      const told = await follow(provider, kept, 'cut');
      const ran = (await shell(provider, kept, 'cat ran 2>/dev/null')).stdout;
      expect([told.status.state, ran]).toEqual(
        told.status.state === 'exited' ? ['exited', 'ran\n'] : ['lost', expect.stringMatching(/^(ran\n)?$/)],
      );
      expect((await shell(provider, kept, 'sha256sum -c --status sum && cat kept')).stdout).toBe('kept\n');
      const saved = await provider.snapshot(kept, 'engine-cut', soon());
      const restored = await provider.create(smallSpec(OWNER, { snapshot: saved }), 'engine-restored', soon());
      expect((await shell(provider, restored, 'sha256sum -c --status sum && cat kept')).stdout).toBe('kept\n');
      // One pass of the reaper: what the list names, and nothing else is there.
      const containers = (await engine.ask<{ Id: string; Labels: Record<string, string> }[]>('/containers/json?all=1'))
        .filter((each) => each.Labels['longhaul.owner'] === OWNER)
        .map((each) => each.Id);
      expect(containers.length).toBe(3);
      for (const info of await listed(provider, OWNER)) {
        expect(info.expiresAtMs).toBeGreaterThan(Date.now());
        await provider.destroy(info.ref, soon());
      }
      for await (const info of provider.listSnapshots(OWNER, soon())) await provider.deleteSnapshot(info.ref, soon());
      const left = await engine.ask<{ Labels: Record<string, string> }[]>('/containers/json?all=1');
      expect(left.filter((each) => each.Labels['longhaul.owner'] === OWNER)).toEqual([]);
      await until('nothing of them is left', () => Promise.resolve(!livesOn(containers)));
    });
  });
}
