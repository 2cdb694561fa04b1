import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
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
      const fill = 'for i in $(seq 200); do head -c 1000000 /dev/zero > fill.$i; sleep 0.02; done';
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

    it('pauses once although the worker is killed meanwhile, and loses no file', async () => {
      for (let round = 0; round < 3; round += 1) {
        const made = await provider.create(smallSpec(OWNER), `pause-${round}`, soon());
        await shell(provider, made, 'echo kept > kept');
        const victim = worker();
        await victim.provider.get(made, soon());
        const cut = victim.provider.pause(made, soon()).catch(() => undefined);
        if (round > 0) await new Promise((resolve) => setTimeout(resolve, round * 15));
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
      expect(livesOn([container])).toBe(false);
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
        await new Promise((resolve) => setTimeout(resolve, 20));
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
      expect(livesOn(containers)).toBe(false);
    });
  });
}
