import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { hostScripts } from '../../activities/sandbox/local/enter.ts';
import { pruneExecs } from '../../activities/sandbox/local/journal.ts';
import { probeGroups } from '../../activities/sandbox/local/groups.ts';
import { markerOf } from '../../activities/sandbox/local/holder.ts';
import { killProcess, processesNamed } from '../../activities/sandbox/local/host.ts';
import { withLock } from '../../activities/sandbox/local/lock.ts';
import { forbiddenNamespaces, missingCapability, oldKernel } from '../../activities/sandbox/local/obstacles.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { follow, LONG_MS, shell, smallSpec, soon, until } from '../support/sandbox-commands.ts';
import { makeBed, SANDBOX_MODES, type SandboxBed } from '../support/sandbox-modes.ts';

/** Processes of this machine whose command line names a sandbox of the provider; each has its own marker. */
function processesWith(word: string): number[] {
  return readdirSync('/proc').flatMap((name) => {
    if (!/^\d+$/.test(name)) return [];
    try {
      return readFileSync(`/proc/${name}/cmdline`, 'latin1').includes(word) ? [Number(name)] : [];
    } catch {
      return [];
    }
  });
}

const status = (uid: number, capabilities: string): string =>
  `Name:\tnode\nUid:\t${uid}\t${uid}\t${uid}\t${uid}\nCapEff:\t${capabilities}\nSeccomp:\t0\n`;
const only = (file: string, value: string) => (asked: string) => (asked.endsWith(file) ? value : '');

/** Folders below which control groups of sandboxes are made, on this machine. Asking makes them. */
const HAS_GROUPS = probeGroups().version !== null;
const GROUP_PARENTS = ['memory', 'pids', 'cpu', '.']
  .map((controller) => path.join('/sys/fs/cgroup', controller, 'longhaul'))
  .filter((folder) => existsSync(folder));
const groupsNamed = (marker: string): string[] =>
  GROUP_PARENTS.map((parent) => path.join(parent, marker)).filter((folder) => existsSync(folder));

function holderOf(bed: SandboxBed, id: string): number {
  const record = JSON.parse(readFileSync(path.join(bed.rootDir, id, 'sandbox.json'), 'utf8')) as {
    holder: { pid: number };
  };
  return record.holder.pid;
}

for (const mode of SANDBOX_MODES) {
  describe(`after something died, ${mode.name}`, { timeout: LONG_MS * 2 }, () => {
    const beds: SandboxBed[] = [];
    afterEach(async () => {
      for (const bed of beds.splice(0)) await bed.close();
    });
    const bedOf = (): SandboxBed => {
      const bed = makeBed(mode);
      beds.push(bed);
      return bed;
    };

    it('a command of a sandbox whose process 1 was killed is lost, and resume gives the files back', async () => {
      const { provider, ...bed } = bedOf();
      const ref = await provider.create(smallSpec('escape'), 'k', soon());
      await shell(provider, ref, 'echo kept > kept');
      await provider.execStart(ref, { execId: 'long', argv: ['sleep', '600'], timeoutMs: 600_000 }, soon());
      process.kill(holderOf({ provider, ...bed }, ref.id), 'SIGKILL');
      expect((await follow(provider, ref, 'long')).status).toEqual({ state: 'lost' });
      expect((await provider.get(ref, soon()))?.state).toBe('stopped');
      expect(await provider.resume(ref, soon())).toBe(true);
      expect((await shell(provider, ref, 'cat kept')).stdout).toBe('kept\n');
      await provider.execStart(ref, { execId: 'long', argv: ['true'], timeoutMs: 1_000 }, soon());
      expect((await follow(provider, ref, 'long')).status).toEqual({ state: 'lost' });
    });

    it('a command whose supervisor was killed is lost and does not go on, however early it was', async () => {
      const bed = bedOf();
      const ref = await bed.provider.create(smallSpec('escape'), 'k', soon());
      for (let round = 0; round < 20; round += 1) {
        const execId = `long-${round}`;
        await bed.provider.execStart(ref, { execId, argv: ['sleep', '6543'], timeoutMs: 600_000 }, soon());
        const signature = path.join(bed.rootDir, ref.id, `execs/x-${execId}/supervisor`);
        // Each a little later than the one before: the command is on its way in by then, or has begun.
        for (const untilMs = performance.now() + round / 2; performance.now() < untilMs;);
        process.kill(Number(readFileSync(signature, 'utf8').split(' ')[0]), 'SIGKILL');
        expect((await follow(bed.provider, ref, execId)).status).toEqual({ state: 'lost' });
      }
      await until('they are gone', async () => {
        const { stdout } = await shell(bed.provider, ref, 'cat /proc/[0-9]*/cmdline | tr "\\0" " "');
        return !stdout.includes('sleep 6543');
      });
    });

    it('destroy leaves no process, folder or control group, also when the record was lost', async () => {
      for (const isLost of [false, true]) {
        const bed = bedOf();
        const ref = await bed.provider.create(smallSpec('escape'), `destroyed-${isLost}`, soon());
        const holder = holderOf(bed, ref.id);
        const word = readFileSync(`/proc/${holder}/cmdline`, 'latin1').replaceAll('\0', '').split(' ')[1] ?? '';
        expect(word).toMatch(/^[0-9a-f]{32}$/);
        await bed.provider.execStart(
          ref,
          { execId: 'x', argv: ['bash', '-c', '(setsid sleep 600 &); sleep 600'], timeoutMs: 600_000 },
          soon(),
        );
        expect(processesWith(word).length).toBeGreaterThan(1);
        if (isLost) rmSync(path.join(bed.rootDir, ref.id, 'sandbox.json'));
        await bed.provider.destroy(ref, soon());
        expect(processesWith(word)).toEqual([]);
        expect(existsSync(`/proc/${holder}`) && readFileSync(`/proc/${holder}/cmdline`, 'utf8') !== '').toBe(false);
        expect(existsSync(path.join(bed.rootDir, ref.id))).toBe(false);
        // What was busy when the sandbox went, the next look takes.
        await until('its groups are gone', async () => {
          for await (const each of bed.provider.list('escape', soon())) expect(each.ref.id).not.toBe(ref.id);
          return groupsNamed(word).length === 0;
        });
      }
    });

    it.runIf(HAS_GROUPS && mode.uid === null)(
      'control groups of a run that was killed are swept, those of living sandboxes stay (needs root and control groups)',
      async () => {
        const [killed, living] = [bedOf(), bedOf()];
        const gone = await killed.provider.create(smallSpec('escape'), 'gone', soon());
        const alive = await living.provider.create(smallSpec('escape'), 'alive', soon());
        const [goneWord, aliveWord] = [markerOf(killed.rootDir, gone.id), markerOf(living.rootDir, alive.id)];
        const made = groupsNamed(aliveWord).length;
        // Before it is killed: whatever else runs on this machine may sweep them at once.
        expect([groupsNamed(goneWord).length, made]).toEqual([made, GROUP_PARENTS.length]);
        process.kill(holderOf(killed, gone.id), 'SIGKILL');
        rmSync(path.join(killed.rootDir, gone.id), { recursive: true });
        await until('they are gone', async () => {
          for await (const _info of living.provider.list('somebody else', soon()));
          return groupsNamed(goneWord).length === 0;
        });
        expect(groupsNamed(aliveWord)).toHaveLength(made);
        // Should somebody take them away all the same, a command makes them anew: never without its limits.
        // What waits there for the next command goes first, which must not keep that one from starting.
        await until('nobody is in them', () => {
          for (const each of processesNamed(aliveWord)) if (!each.isHolder) killProcess(each.identity, 'SIGKILL');
          const folders = groupsNamed(aliveWord);
          const members = folders.map((folder) => readFileSync(path.join(folder, 'cgroup.procs'), 'utf8'));
          return Promise.resolve(members.every((pids) => pids === ''));
        });
        for (const folder of groupsNamed(aliveWord)) rmdirSync(folder);
        await living.provider.execStart(alive, { execId: 'x', argv: ['sleep', '600'], timeoutMs: 600_000 }, soon());
        await until('it is in all of them', () => {
          const members = groupsNamed(aliveWord).map((folder) =>
            readFileSync(path.join(folder, 'cgroup.procs'), 'utf8'),
          );
          return Promise.resolve(members.length === made && members.every((pids) => pids !== ''));
        });
      },
    );

    it('no process inside shows more files than its own, nor does one on its way in', async () => {
      const bed = bedOf();
      const ref = await bed.provider.create(smallSpec('escape'), 'k', soon());
      const look =
        'for i in $(seq 400); do for d in /proc/[0-9]*/root /proc/[0-9]*/cwd; do [ -e $d/etc/shadow ] && echo SEEN $d; [ -e $d/sandbox.json ] && echo SEEN $d; done; done; echo done';
      await bed.provider.execStart(ref, { execId: 'look', argv: ['bash', '-c', look], timeoutMs: 150_000 }, soon());
      for (let round = 0; round < 20; round += 1) {
        await shell(bed.provider, ref, 'true');
        await bed.provider.stat(ref, '/workspace', soon());
      }
      expect((await follow(bed.provider, ref, 'look')).stdout).toBe('done\n');
    });
  });
}

describe('the parts', () => {
  const made: string[] = [];
  const folder = (): string => {
    const name = mkdtempSync(path.join(os.tmpdir(), 'longhaul-parts-'));
    made.push(name);
    return name;
  };
  afterEach(() => {
    for (const name of made.splice(0)) rmSync(name, { recursive: true, force: true });
  });

  it.runIf(process.geteuid?.() === 0)('a root directory nobody else may enter works', async () => {
    const outer = folder();
    chmodSync(outer, 0o700);
    const mode = SANDBOX_MODES[0];
    if (mode === undefined) throw new Error('there is no mode');
    const bed = makeBed(mode, {}, outer);
    const ref = await bed.provider.create(smallSpec('escape'), 'k', soon());
    expect((await shell(bed.provider, ref, 'echo works > f; cat f')).stdout).toBe('works\n');
    await bed.close();
  });

  it('a lock whose owner died is taken over by one at a time', async () => {
    const ended = spawn('true');
    await once(ended, 'exit');
    const file = path.join(folder(), 'lock');
    symlinkSync(`${ended.pid}:1:dead`, file);
    let inside = 0;
    let most = 0;
    const work = async (): Promise<void> => {
      inside += 1;
      most = Math.max(most, inside);
      await new Promise((resolve) => setImmediate(resolve));
      inside -= 1;
    };
    await Promise.all(Array.from({ length: 20 }, () => withLock(file, work)));
    expect(most).toBe(1);
    expect(existsSync(file)).toBe(false);
  });

  it('the journal forgets old output, never that a command ran', async () => {
    const rootDir = folder();
    const old = new Date(Date.now() - 3_600_000);
    for (const name of ['x-1', 'x-2', 'x-running']) {
      const dir = path.join(rootDir, 'lh-1', 'execs', name);
      mkdirSync(dir, { recursive: true });
      writeFileSync(path.join(dir, 'out'), '');
      if (name !== 'x-running') {
        writeFileSync(path.join(dir, 'exit.json'), '{}');
        utimesSync(path.join(dir, 'exit.json'), old, name === 'x-1' ? new Date(old.getTime() - 1_000) : old);
      }
    }
    const out = (name: string): string => path.join(rootDir, 'lh-1', 'execs', name, 'out');
    const fill = spawn('truncate', ['-s', String(5 * LIMITS.execOutputBytes), out('x-1')]);
    await once(fill, 'exit');
    pruneExecs(rootDir, 'lh-1');
    expect([existsSync(out('x-1')), existsSync(out('x-2')), existsSync(out('x-running'))]).toEqual([false, true, true]);
    expect(existsSync(path.join(rootDir, 'lh-1', 'execs', 'x-1', 'exit.json'))).toBe(true);
  });

  it('the scripts are clean under strict and warnings, which they do without for speed', () => {
    for (const script of Object.values(hostScripts())) {
      const argv = ['-Mstrict', '-Mwarnings=FATAL,all', '-c', '-e', script];
      const { stderr } = spawnSync('perl', argv, { encoding: 'utf8', env: { PATH: '/usr/bin:/bin' } });
      expect(stderr).toBe('-e syntax OK\n');
    }
  });

  it('the obstacles of a machine are told with what to do', () => {
    expect(oldKernel('5.10.0-8-amd64')?.fix).toContain('5.14');
    expect(oldKernel('5.14.0')).toBeNull();
    expect(oldKernel('6.1.0-9')).toBeNull();
    expect(forbiddenNamespaces(() => '')).toBeNull();
    expect(forbiddenNamespaces(only('max_user_namespaces', '0'))?.fix).toContain('user.max_user_namespaces');
    expect(forbiddenNamespaces(only('userns_clone', '0'))?.fix).toContain('unprivileged_userns_clone=1');
    expect(forbiddenNamespaces(only('unprivileged_userns', '1'))?.detail).toContain('AppArmor');
    expect(missingCapability(status(0, '000001ffffffffff'))).toBeNull();
    expect(missingCapability(status(1000, '0000000000000000'))).toBeNull();
    expect(missingCapability(status(0, '00000000a80425fb'))?.fix).toContain('SYS_PTRACE');
  });
});
