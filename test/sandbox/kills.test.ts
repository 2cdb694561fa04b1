import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { markerOf } from '../../activities/sandbox/local/holder.ts';
import { processesNamed } from '../../activities/sandbox/local/host.ts';
import type { SandboxRef } from '../../activities/sandbox/port.ts';
import { follow, LONG_MS, shell, smallSpec, soon, until } from '../support/sandbox-commands.ts';
import { makeBed, SANDBOX_MODES, type SandboxBed } from '../support/sandbox-modes.ts';

const groupsLeft = (marker: string): string[] =>
  ['pids', 'memory', 'cpu', 'freezer', ''].filter((name) =>
    existsSync(path.join('/sys/fs/cgroup', name, 'longhaul', marker)),
  );

/** Processes that read an archive into a sandbox of this folder. */
function restoring(rootDir: string): string[] {
  const name = path.basename(rootDir);
  return readdirSync('/proc').filter((pid) => {
    try {
      const isTar = /^\d+$/.test(pid) && readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('--extract');
      return isTar && readFileSync(`/proc/${pid}/mountinfo`, 'utf8').includes(name);
    } catch {
      return false;
    }
  });
}

/** A worker is killed while it pauses, freezes, wakes or removes a sandbox; the next one finds nothing that hangs. */
for (const mode of SANDBOX_MODES) {
  describe(`killed in the middle, ${mode.name}`, { timeout: LONG_MS * 2 }, () => {
    let bed: SandboxBed;
    let canFreeze: boolean;
    let made = 0;
    const fresh = (provider = bed.provider): Promise<SandboxRef> => {
      made += 1;
      return provider.create(smallSpec('escape'), `kills-${made}`, soon());
    };
    /** Calls in a worker that is killed so many milliseconds later. */
    const killedAfter = async (
      afterMs: number,
      call: (provider: SandboxBed['provider']) => Promise<unknown>,
    ): Promise<void> => {
      const victim = bed.worker();
      await victim.provider.capabilities();
      const lost = call(victim.provider).catch(() => undefined);
      if (afterMs > 0) await delay(afterMs);
      await victim.kill();
      await lost;
    };
    const expectNothingLeft = async (ref: SandboxRef): Promise<void> => {
      const marker = markerOf(bed.rootDir, ref.id);
      expect(await bed.provider.destroy(ref, soon())).toBe(true);
      expect(processesNamed(marker)).toEqual([]);
      expect(readdirSync(bed.rootDir)).not.toContain(ref.id);
      await until('its groups are gone', async () => {
        for await (const each of bed.provider.list('escape', soon())) expect(each.ref.id).not.toBe(ref.id);
        return groupsLeft(marker).length === 0;
      });
    };

    beforeAll(async () => {
      bed = makeBed(mode);
      canFreeze = (await bed.provider.capabilities()).pause === 'memory';
    });
    afterAll(async () => {
      await bed.close();
    });

    it.each([0, 2, 6])('a pause, %s ms in', async (afterMs) => {
      const ref = await fresh();
      await shell(bed.provider, ref, 'echo kept > kept');
      await bed.provider.execStart(ref, { execId: 'long', argv: ['sleep', '600'], timeoutMs: 600_000 }, soon());
      await killedAfter(afterMs, (provider) => provider.pause(ref, soon()));
      await bed.provider.pause(ref, soon());
      expect((await bed.provider.get(ref, soon()))?.state).toBe('paused');
      expect((await follow(bed.provider, ref, 'long')).status).toEqual({ state: 'lost' });
      await killedAfter(afterMs, (provider) => provider.resume(ref, soon()));
      await bed.provider.resume(ref, soon());
      expect((await shell(bed.provider, ref, 'cat kept')).stdout).toBe('kept\n');
      await expectNothingLeft(ref);
    });

    it.each([0, 2, 6])('a freeze and a thaw, %s ms in', async (afterMs) => {
      if (!canFreeze) return;
      const ref = await fresh();
      const line = 'echo begun >> begun; while [ ! -e stop ]; do sleep 0.02; done; echo "went on"';
      await bed.provider.execStart(ref, { execId: 'stands', argv: ['bash', '-c', line], timeoutMs: 150_000 }, soon());
      await until('it began', async () => (await bed.provider.stat(ref, '/workspace/begun', soon())) !== null);
      await killedAfter(afterMs, (provider) => provider.pause(ref, soon(), { keepMemory: true }));
      await bed.provider.pause(ref, soon(), { keepMemory: true });
      expect((await bed.provider.get(ref, soon()))?.state).toBe('paused');
      await killedAfter(afterMs, (provider) => provider.resume(ref, soon()));
      await bed.provider.resume(ref, soon());
      await bed.provider.writeFile(ref, '/workspace/stop', new Uint8Array(0), soon());
      expect((await follow(bed.provider, ref, 'stands')).stdout).toBe('went on\n');
      expect((await shell(bed.provider, ref, 'cat begun')).stdout).toBe('begun\n');
      await expectNothingLeft(ref);
    });

    it('time stands still for a frozen command, which can be killed all the same', async () => {
      if (!canFreeze) return;
      const ref = await fresh();
      const start = (execId: string, timeoutMs: number): Promise<void> =>
        bed.provider.execStart(ref, { execId, argv: ['sleep', '600'], timeoutMs }, soon());
      await start('short', 12_000);
      await start('other', 150_000);
      await bed.provider.pause(ref, soon(), { keepMemory: true });
      // Longer than it may run.
      await delay(13_000);
      expect((await bed.provider.execPoll(ref, 'short', { out: 0, err: 0 }, 0, soon())).status.state).toBe('running');
      await bed.provider.execKill(ref, 'other', soon());
      expect((await follow(bed.provider, ref, 'other')).status).toEqual({ state: 'killed', reason: 'signal' });
      expect((await bed.provider.get(ref, soon()))?.state).toBe('paused');
      await bed.provider.resume(ref, soon());
      expect((await follow(bed.provider, ref, 'short')).status).toEqual({ state: 'killed', reason: 'timeout' });
      await bed.provider.pause(ref, soon(), { keepMemory: true });
      await bed.provider.pause(ref, soon());
      expect((await bed.provider.get(ref, soon()))?.state).toBe('paused');
      expect(await bed.provider.egressPoint(ref, soon())).toBeNull();
      await expectNothingLeft(ref);
    });

    it.each([0, 3, 9])('a removal, %s ms in', async (afterMs) => {
      const ref = await fresh();
      await shell(bed.provider, ref, 'for i in $(seq 300); do mkdir -p d$i && echo $i > d$i/f; done');
      await bed.provider.execStart(ref, { execId: 'long', argv: ['sleep', '600'], timeoutMs: 600_000 }, soon());
      const marker = markerOf(bed.rootDir, ref.id);
      await killedAfter(afterMs, (provider) => provider.destroy(ref, soon()));
      await bed.provider.destroy(ref, soon());
      expect(await bed.provider.get(ref, soon())).toBeNull();
      expect(processesNamed(marker)).toEqual([]);
      expect(readdirSync(bed.rootDir)).not.toContain(ref.id);
    });

    it.each([2, 12])('a restore, %s ms in', async (afterMs) => {
      const ref = await fresh();
      await shell(bed.provider, ref, 'head -c 40000000 /dev/urandom > big; echo saved > file');
      const saved = await bed.provider.snapshot(ref, `kills-restore-${afterMs}`, soon());
      const spec = smallSpec('escape', { snapshot: saved });
      const key = `kills-restored-${afterMs}`;
      await killedAfter(afterMs, (provider) => provider.create(spec, key, soon()));
      const next = await bed.provider.create(spec, key, soon());
      // What the victim had begun does not go on beside it, nor write over what came later.
      expect((await shell(bed.provider, next, 'cat file; rm big; echo mine > file')).stdout).toBe('saved\n');
      await until('nothing restores', () => Promise.resolve(restoring(bed.rootDir).length === 0));
      expect((await shell(bed.provider, next, 'ls -A; cat file')).stdout).toBe('file\nmine\n');
      await expectNothingLeft(next);
      await bed.provider.deleteSnapshot(saved, soon());
      await expectNothingLeft(ref);
    });

    it('a worker that waits with the next command’s process leaves none behind', async () => {
      const victim = bed.worker();
      // Made by the victim: a process of the bed's own that waits would stay its twenty seconds.
      const ref = await fresh(victim.provider);
      await victim.provider.execStart(ref, { execId: 'one', argv: ['true'], timeoutMs: 150_000 }, soon());
      await follow(victim.provider, ref, 'one');
      const marker = markerOf(bed.rootDir, ref.id);
      const waiting = (): number => processesNamed(marker).filter((each) => !each.isHolder).length;
      await until('one waits', () => Promise.resolve(waiting() > 0));
      await victim.kill();
      await until('none waits', () => Promise.resolve(waiting() === 0));
      expect((await shell(bed.provider, ref, 'echo works')).stdout).toBe('works\n');
      await expectNothingLeft(ref);
    });
  });
}
