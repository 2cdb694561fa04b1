import { createHash } from 'node:crypto';
import { EventEmitter, once } from 'node:events';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import type { Duplex } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import type {
  SandboxCapabilities,
  SandboxInfo,
  SandboxProvider,
  SandboxRef,
  SandboxSpec,
  SnapshotInfo,
} from '../../activities/sandbox/port.ts';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { follow, runIn, shell, smallSpec, soon, until } from '../support/sandbox-commands.ts';

const MIB = 1024 * 1024;

export const OWNER = 'conformance';
export const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

/** What a provider that is tested offers to the parts of the suite; read when a test runs. */
export interface Bench {
  provider(): SandboxProvider;
  can(): SandboxCapabilities;
  /** A sandbox all tests of the adapter share. */
  shared(): SandboxRef;
  fresh(change?: Partial<SandboxSpec>): Promise<SandboxRef>;
  another(): Promise<{ provider: SandboxProvider; kill(): Promise<void> }>;
  bigFileBytes(): number;
}

/** The code of what went wrong, or `no error`. */
export async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return 'no error';
  } catch (error) {
    return error instanceof LonghaulError ? error.code : String(error);
  }
}

/** All sandboxes of an owner. */
export async function listed(provider: SandboxProvider, owner: string): Promise<SandboxInfo[]> {
  const found: SandboxInfo[] = [];
  for await (const info of provider.list(owner, soon())) found.push(info);
  return found;
}

async function snapshotsOf(provider: SandboxProvider, owner: string): Promise<SnapshotInfo[]> {
  const found: SnapshotInfo[] = [];
  for await (const info of provider.listSnapshots(owner, soon())) found.push(info);
  return found;
}

async function* pieces(sizeBytes: number, hash?: ReturnType<typeof createHash>): AsyncIterable<Uint8Array> {
  const block = Uint8Array.from({ length: MIB + 7 }, (_value, index) => (index * 7919) % 253);
  for (let left = sizeBytes; left > 0; left -= block.length) {
    const piece = block.subarray(0, Math.min(left, block.length));
    hash?.update(piece);
    yield piece;
    await Promise.resolve();
  }
}

async function gather(stream: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const found: Uint8Array[] = [];
  for await (const piece of stream) found.push(piece);
  return Buffer.concat(found);
}

/** Input that comes while the command runs. */
export function inputParts(bench: Bench): void {
  const openCat = async (execId: string, argv: string[] = ['cat']): Promise<SandboxRef> => {
    await bench.provider().execStart(bench.shared(), { execId, argv, timeoutMs: 150_000, stdin: 'open' }, soon());
    return bench.shared();
  };

  describe('input', () => {
    it('feeds a command while it runs, and ends its input', async () => {
      const provider = bench.provider();
      const ref = await openCat('in-cat', ['bash', '-c', 'while read -r line; do echo "got $line"; done; echo over']);
      expect(await provider.execInput(ref, 'in-cat', 0, bytes('one\n'), soon())).toBe(4);
      await until('the first line is answered', async () => {
        const poll = await provider.execPoll(ref, 'in-cat', { out: 0, err: 0 }, 1_000, soon());
        expect(poll.status.state).toBe('running');
        return Buffer.from(poll.stdout).toString() === 'got one\n';
      });
      expect(await provider.execInput(ref, 'in-cat', 4, bytes('two\n'), soon())).toBe(8);
      expect(await provider.execInput(ref, 'in-cat', 8, null, soon())).toBe(8);
      const done = await follow(provider, ref, 'in-cat');
      expect(done).toMatchObject({ stdout: 'got one\ngot two\nover\n', status: { state: 'exited', exitCode: 0 } });
    });

    it('feeds nothing twice and leaves nothing out, however often an offset is repeated', async () => {
      const provider = bench.provider();
      const ref = await openCat('in-twice');
      const feed = (offset: number, text: string): Promise<number> =>
        provider.execInput(ref, 'in-twice', offset, bytes(text), soon());
      expect(await feed(0, 'abc')).toBe(3);
      expect(await feed(0, 'abc')).toBe(3);
      expect(await feed(1, 'bcde')).toBe(5);
      expect(await feed(5, '')).toBe(5);
      expect(await codeOf(feed(9, 'x'))).toBe('sandbox_invalid');
      expect(await feed(2, 'c')).toBe(5);
      expect(await provider.execInput(ref, 'in-twice', 5, null, soon())).toBe(5);
      expect(await provider.execInput(ref, 'in-twice', 5, null, soon())).toBe(5);
      expect(await feed(3, 'de')).toBe(5);
      expect(await codeOf(feed(5, 'late'))).toBe('sandbox_invalid');
      expect((await follow(provider, ref, 'in-twice')).stdout).toBe('abcde');
    });

    it('takes more than a pipe holds, byte for byte', async () => {
      const provider = bench.provider();
      const ref = await openCat('in-much', ['sha256sum']);
      const hash = createHash('sha256');
      let offset = 0;
      for await (const piece of pieces(3 * MIB, hash)) {
        offset = await provider.execInput(ref, 'in-much', offset, piece, soon());
      }
      await provider.execInput(ref, 'in-much', offset, null, soon());
      expect((await follow(provider, ref, 'in-much')).stdout.slice(0, 64)).toBe(hash.digest('hex'));
    });

    it('goes on from another process when the feeder is killed', async () => {
      const victim = await bench.another();
      const provider = bench.provider();
      const ref = bench.shared();
      const spec = { execId: 'in-heir', argv: ['cat'], timeoutMs: 150_000, stdin: 'open' as const };
      await victim.provider.execStart(ref, spec, soon());
      await victim.provider.execInput(ref, 'in-heir', 0, bytes('first '), soon());
      const cut = victim.provider.execInput(ref, 'in-heir', 6, bytes('second '), soon()).catch(() => undefined);
      await victim.kill();
      await cut;
      expect(await provider.execInput(ref, 'in-heir', 6, bytes('second '), soon())).toBe(13);
      expect(await provider.execInput(ref, 'in-heir', 13, null, soon())).toBe(13);
      expect((await follow(provider, ref, 'in-heir')).stdout).toBe('first second ');
    });

    it('refuses input for what takes none', async () => {
      const provider = bench.provider();
      const ref = bench.shared();
      await provider.execStart(ref, { execId: 'in-closed', argv: ['cat'], timeoutMs: 150_000 }, soon());
      for (const execId of ['in-closed', 'in-never']) {
        expect(await codeOf(provider.execInput(ref, execId, 0, bytes('x'), soon()))).toBe('sandbox_invalid');
      }
    });
  });

  describe('signals and list', () => {
    it('passes a signal on to every process of the command', async () => {
      const provider = bench.provider();
      const ref = bench.shared();
      const child = 'trap "echo child; exit" USR1; echo up; while :; do sleep 0.05; done';
      const line = `bash -c '${child}' & trap 'echo parent' USR1; echo up; wait; wait; exit 5`;
      await provider.execStart(ref, { execId: 'signalled', argv: ['bash', '-c', line], timeoutMs: 150_000 }, soon());
      await until('both are up', async () => {
        const poll = await provider.execPoll(ref, 'signalled', { out: 0, err: 0 }, 1_000, soon());
        return Buffer.from(poll.stdout).toString() === 'up\nup\n';
      });
      expect(await provider.execSignal(ref, 'signalled', 'SIGUSR1', soon())).toBe(true);
      const done = await follow(provider, ref, 'signalled');
      expect(done.stdout.slice(6).trim().split('\n').toSorted()).toEqual(['child', 'parent']);
      expect(done.status).toMatchObject({ state: 'exited', exitCode: 5 });
      expect(await provider.execSignal(ref, 'signalled', 'SIGUSR1', soon())).toBe(false);
      expect(await provider.execSignal(ref, 'never-signalled', 'SIGINT', soon())).toBe(false);
    });

    it('ends a command by SIGTERM as the program wants it', async () => {
      const provider = bench.provider();
      const ref = bench.shared();
      const line = 'trap "echo tidied; exit 3" TERM; echo up; while :; do sleep 0.05; done';
      await provider.execStart(ref, { execId: 'term', argv: ['bash', '-c', line], timeoutMs: 150_000 }, soon());
      await until('it is up', async () => {
        return (await provider.execPoll(ref, 'term', { out: 0, err: 0 }, 1_000, soon())).stdout.length > 0;
      });
      expect(await provider.execSignal(ref, 'term', 'SIGTERM', soon())).toBe(true);
      const done = await follow(provider, ref, 'term');
      expect(done).toMatchObject({ stdout: 'up\ntidied\n', status: { state: 'exited', exitCode: 3 } });
    });

    it('lists the commands of its journal, newest first', async () => {
      const provider = bench.provider();
      const ref = await bench.fresh();
      expect(await provider.execList(ref, 10, soon())).toEqual([]);
      await runIn(provider, ref, ['true'], { execId: 'first' });
      await runIn(provider, ref, ['false'], { execId: 'second' });
      await provider.execStart(ref, { execId: 'third', argv: ['sleep', '600'], timeoutMs: 600_000 }, soon());
      const all = await provider.execList(ref, 10, soon());
      expect(all).toEqual([
        { execId: 'third', status: { state: 'running' } },
        { execId: 'second', status: { state: 'exited', exitCode: 1, signal: null } },
        { execId: 'first', status: { state: 'exited', exitCode: 0, signal: null } },
      ]);
      expect(await provider.execList(ref, 2, soon())).toEqual(all.slice(0, 2));
      await provider.execKill(ref, 'third', soon());
      await provider.destroy(ref, soon());
    });
  });
}

/** Files in pieces, and their removal. */
export function streamParts(bench: Bench): void {
  describe('streamed files', () => {
    it('streams a large file in and out', async () => {
      const provider = bench.provider();
      const sizeBytes = bench.bigFileBytes();
      const ref = await bench.fresh({ diskBytes: 3 * sizeBytes });
      const hash = createHash('sha256');
      const file = '/workspace/deep/big';
      expect(await provider.writeStream(ref, file, pieces(sizeBytes, hash), soon())).toBe(sizeBytes);
      const back = createHash('sha256');
      let largest = 0;
      for await (const piece of provider.readStream(ref, file, soon())) {
        back.update(piece);
        largest = Math.max(largest, piece.length);
      }
      expect(back.digest('hex')).toBe(hash.digest('hex'));
      expect(largest).toBeLessThanOrEqual(16 * MIB);
      expect((await provider.stat(ref, file, soon()))?.sizeBytes).toBe(sizeBytes);
      expect(await provider.remove(ref, file, soon())).toBe(true);
      await provider.destroy(ref, soon());
    });

    it('leaves the old content when a stream breaks off', async () => {
      const provider = bench.provider();
      const ref = bench.shared();
      await provider.writeFile(ref, '/workspace/broken/file', bytes('old'), soon());
      async function* breaking(): AsyncIterable<Uint8Array> {
        yield bytes('new and ');
        yield new Uint8Array(MIB);
        await Promise.resolve();
        throw new Error('the source broke');
      }
      const written = provider.writeStream(ref, '/workspace/broken/file', breaking(), soon());
      await expect(written).rejects.toThrow();
      const { stdout } = await shell(provider, ref, 'cat broken/file; ls -A broken');
      expect(stdout).toBe('oldfile\n');
      const none = provider.writeStream(ref, '/workspace/broken/none', pieces(0), soon());
      expect(await none).toBe(0);
      expect((await provider.stat(ref, '/workspace/broken/none', soon()))?.sizeBytes).toBe(0);
    });

    it('leaves the old content when the writer is killed', async () => {
      const provider = bench.provider();
      const ref = bench.shared();
      await provider.writeFile(ref, '/workspace/killed/file', bytes('old'), soon());
      const victim = await bench.another();
      await victim.provider.get(ref, soon());
      const given = new EventEmitter();
      const isGiven = once(given, 'all');
      async function* endless(): AsyncIterable<Uint8Array> {
        for (let sent = 0; sent < 8; sent += 1) yield new Uint8Array(MIB / 4);
        given.emit('all');
        await new Promise(() => undefined);
      }
      void victim.provider.writeStream(ref, '/workspace/killed/file', endless(), soon()).catch(() => undefined);
      await isGiven;
      await victim.kill();
      for (let look = 0; look < 3; look += 1) {
        expect((await shell(provider, ref, 'cat killed/file')).stdout).toBe('old');
      }
      await provider.writeStream(ref, '/workspace/killed/file', pieces(10), soon());
      expect((await provider.stat(ref, '/workspace/killed/file', soon()))?.sizeBytes).toBe(10);
    });

    it('lets a reader stop early, and says what is no file', async () => {
      const provider = bench.provider();
      const ref = bench.shared();
      await provider.writeStream(ref, '/workspace/long-file', pieces(4 * MIB), soon());
      for await (const piece of provider.readStream(ref, '/workspace/long-file', soon())) {
        expect(piece.length).toBeGreaterThan(0);
        break;
      }
      await shell(provider, ref, 'mkdir -p a-folder; : > empty');
      expect((await gather(provider.readStream(ref, '/workspace/empty', soon()))).length).toBe(0);
      for (const file of ['/workspace/no-such-file', '/workspace/a-folder', 'relative']) {
        expect([file, await codeOf(gather(provider.readStream(ref, file, soon())))]).toEqual([file, 'sandbox_invalid']);
      }
      const onFolder = provider.writeStream(ref, '/workspace/a-folder', pieces(10), soon());
      expect(await codeOf(onFolder)).toBe('sandbox_invalid');
      expect((await shell(provider, ref, 'ls -A a-folder')).stdout).toBe('');
    });

    it('removes files and folders once', async () => {
      const provider = bench.provider();
      const ref = bench.shared();
      await shell(provider, ref, 'mkdir -p gone/in/deep; echo x > gone/in/f; ln -s /etc gone/link; echo kept > other');
      await shell(provider, ref, 'ln -s other pointer');
      expect(await provider.remove(ref, '/workspace/pointer', soon())).toBe(true);
      expect(await provider.remove(ref, '/workspace/gone', soon())).toBe(true);
      expect(await provider.remove(ref, '/workspace/gone', soon())).toBe(false);
      expect((await shell(provider, ref, 'ls -d gone pointer 2>/dev/null; cat other')).stdout).toBe('kept\n');
      expect(await codeOf(provider.remove(ref, 'relative', soon()))).toBe('sandbox_invalid');
    });
  });
}

/** Pauses that keep memory, and saved file systems. */
export function savingParts(bench: Bench): void {
  describe('frozen', () => {
    it('keeps the memory over a pause where it says so', async () => {
      const provider = bench.provider();
      const ref = await bench.fresh();
      if (bench.can().pause !== 'memory') {
        expect(await codeOf(provider.pause(ref, soon(), { keepMemory: true }))).toBe('sandbox_unsupported');
        expect((await provider.get(ref, soon()))?.state).toBe('running');
        return;
      }
      const line = 'n=0; while [ ! -e stop ]; do n=$((n + 1)); echo $n > n; sleep 0.02; done; echo "went on"';
      await provider.execStart(ref, { execId: 'counts', argv: ['bash', '-c', line], timeoutMs: 150_000 }, soon());
      await until('it counts', async () => (await provider.stat(ref, '/workspace/n', soon())) !== null);
      expect(await provider.pause(ref, soon(), { keepMemory: true })).toBe(true);
      expect(await provider.pause(ref, soon(), { keepMemory: true })).toBe(false);
      expect((await provider.get(ref, soon()))?.state).toBe('paused');
      const start = provider.execStart(ref, { execId: 'meanwhile', argv: ['true'], timeoutMs: 1_000 }, soon());
      expect(await codeOf(start)).toMatch(/^sandbox_(lost|unavailable)$/);
      expect((await provider.execPoll(ref, 'counts', { out: 0, err: 0 }, 0, soon())).status.state).toBe('running');
      expect(await provider.resume(ref, soon())).toBe(true);
      expect((await provider.get(ref, soon()))?.state).toBe('running');
      await provider.writeFile(ref, '/workspace/stop', bytes(''), soon());
      expect((await follow(provider, ref, 'counts')).stdout).toBe('went on\n');
      await provider.pause(ref, soon(), { keepMemory: true });
      expect(await provider.destroy(ref, soon())).toBe(true);
    });
  });

  describe('snapshots', () => {
    it('saves files, and starts others from them', async () => {
      const provider = bench.provider();
      const ref = await bench.fresh();
      if (!bench.can().snapshot) {
        expect(await codeOf(provider.snapshot(ref, 'key', soon()))).toBe('sandbox_unsupported');
        expect(await snapshotsOf(provider, OWNER)).toEqual([]);
        return;
      }
      const line = 'mkdir -p d/e; echo one > d/e/f; ln -s f d/e/link; chmod 750 d/e/f; printf "\\377" > "odd name"';
      await shell(provider, ref, line);
      const [saved, again] = await Promise.all([1, 2].map(() => provider.snapshot(ref, 'same-key', soon())));
      if (saved === undefined) throw new Error('there is no snapshot');
      expect(again?.id).toBe(saved.id);
      await shell(provider, ref, 'echo two > d/e/f');
      expect((await provider.snapshot(ref, 'same-key', soon())).id).toBe(saved.id);
      const later = await provider.snapshot(ref, 'later-key', soon());
      expect(later.id).not.toBe(saved.id);
      await provider.destroy(ref, soon());
      const made = await bench.fresh({ snapshot: saved });
      const look = 'cat d/e/link; stat -c %a d/e/f; od -An -tx1 "odd name"';
      expect((await shell(provider, made, look)).stdout).toBe('one\n750\n ff\n');
      expect((await shell(provider, made, 'echo mine > d/e/f && cat d/e/f')).stdout).toBe('mine\n');
      const other = await bench.fresh({ snapshot: later });
      expect((await shell(provider, other, 'cat d/e/f')).stdout).toBe('two\n');
      const all = await snapshotsOf(provider, OWNER);
      expect(all.filter((each) => [saved.id, later.id].includes(each.ref.id))).toHaveLength(2);
      for (const each of all) expect(each.owner).toBe(OWNER);
      expect(Date.now() - (all[0]?.createdAtMs ?? 0)).toBeLessThan(3_600_000);
      for (const each of [saved, later]) expect(await provider.deleteSnapshot(each, soon())).toBe(true);
      expect(await provider.deleteSnapshot(saved, soon())).toBe(false);
      const left = (await snapshotsOf(provider, OWNER)).map((each) => each.ref.id);
      expect(left.filter((id) => [saved.id, later.id].includes(id))).toEqual([]);
      expect(await codeOf(bench.fresh({ snapshot: saved }))).toMatch(/^sandbox_(not_found|invalid)$/);
      await Promise.all([made, other].map((each) => provider.destroy(each, soon())));
    });

    it('finishes a snapshot and a restore that a crash cut short', async () => {
      if (!bench.can().snapshot) return;
      const provider = bench.provider();
      const ref = await bench.fresh();
      await shell(
        provider,
        ref,
        'for i in 1 2 3 4 5 6; do head -c 2000000 /dev/urandom > r$i; done; sha256sum r* > sums',
      );
      const sums = (await shell(provider, ref, 'cat sums')).stdout;
      for (let round = 0; round < 3; round += 1) {
        const victim = await bench.another();
        await victim.provider.get(ref, soon());
        const cut = victim.provider.snapshot(ref, 'cut-key', soon()).catch(() => undefined);
        if (round > 0) await delay(round * 8);
        await victim.kill();
        await cut;
      }
      const saved = await provider.snapshot(ref, 'cut-key', soon());
      const spec = smallSpec(OWNER, { snapshot: saved });
      for (let round = 0; round < 3; round += 1) {
        const victim = await bench.another();
        await victim.provider.get(ref, soon());
        const cut = victim.provider.create(spec, 'cut-restore', soon()).catch(() => undefined);
        if (round > 0) await delay(round * 8);
        await victim.kill();
        await cut;
      }
      const made = await provider.create(spec, 'cut-restore', soon());
      if ((await provider.get(made, soon()))?.state !== 'running') await provider.resume(made, soon());
      expect((await shell(provider, made, 'sha256sum r*')).stdout).toBe(sums);
      await Promise.all([ref, made].map((each) => provider.destroy(each, soon())));
      expect(await provider.deleteSnapshot(saved, soon())).toBe(true);
    });
  });
}

async function ask(stream: Duplex, text: string): Promise<string> {
  stream.write(text);
  for await (const piece of stream) {
    stream.destroy();
    return Buffer.from(piece as Uint8Array).toString();
  }
  return '';
}

const SERVER =
  'perl -MIO::Socket::INET -e \'my $s = IO::Socket::INET->new(Listen => 5, LocalAddr => "127.0.0.1", LocalPort => 8123, ReuseAddr => 1) or die; while (my $c = $s->accept) { my $l = <$c>; print $c "HTTP/1.0 200 OK\\r\\ncontent-length: " . length($l) . "\\r\\n\\r\\n$l"; close $c }\'';

/** What a sandbox may reach, what it trusts, and what reaches it. */
export function networkParts(bench: Bench): void {
  describe('network', () => {
    it('gives each kind of network it says it has, and refuses the others', async () => {
      const provider = bench.provider();
      const { network, egress } = bench.can();
      const kinds = {
        none: true,
        broker: egress !== 'none',
        native: egress === 'domains' || egress === 'addresses',
        open: network === 'open',
      };
      const none = await bench.fresh({ network: { type: 'none' } });
      expect((await provider.get(none, soon()))?.state).toBe('running');
      await provider.destroy(none, soon());
      // A remote sandbox reaches the broker at an address of its own; a listener inside needs none.
      const proxy = egress === 'listener' ? null : { host: '192.0.2.1', port: 3128 };
      const wanted = [
        { type: 'broker', proxy },
        { type: 'native', allowedHosts: [egress === 'addresses' ? '192.0.2.0/24' : 'example.com'] },
        { type: 'open' },
      ] as const;
      for (const each of wanted) {
        const spec = each.type === 'native' ? { ...each, allowedHosts: [...each.allowedHosts] } : each;
        const code = await codeOf(bench.fresh({ network: spec }).then((made) => provider.destroy(made, soon())));
        expect([each.type, code]).toEqual([each.type, kinds[each.type] ? 'no error' : 'sandbox_unsupported']);
      }
    });

    it('changes what a running sandbox may reach, or says that it cannot', async () => {
      const provider = bench.provider();
      const ref = await bench.fresh();
      const proxy = bench.can().egress === 'listener' ? null : { host: '192.0.2.1', port: 3128 };
      expect(await codeOf(provider.setNetwork(ref, { type: 'none' }, soon()))).toMatch(
        /^(no error|sandbox_unsupported)$/,
      );
      const broker = await codeOf(provider.setNetwork(ref, { type: 'broker', proxy }, soon()));
      expect(broker).toMatch(
        bench.can().egress === 'none' ? /^sandbox_unsupported$/ : /^(no error|sandbox_unsupported)$/,
      );
      if (bench.can().network !== 'open') {
        expect(await codeOf(provider.setNetwork(ref, { type: 'open' }, soon()))).toBe('sandbox_unsupported');
      }
      await provider.destroy(ref, soon());
    });

    it('names the namespace where the broker may listen, where there is one', async () => {
      const provider = bench.provider();
      if (bench.can().egress !== 'listener') {
        const plain = await bench.fresh();
        expect(await provider.egressPoint(plain, soon())).toBeNull();
        await provider.destroy(plain, soon());
        return;
      }
      const ref = await bench.fresh({ network: { type: 'broker', proxy: null } });
      const point = await provider.egressPoint(ref, soon());
      if (point === null) throw new Error('there is no egress point');
      const fields = readFileSync(`/proc/${point.pid}/stat`, 'utf8')
        .replace(/^.*\) /s, '')
        .split(' ');
      expect(fields[19]).toBe(point.startTime);
      expect(readFileSync(`/proc/${point.pid}/net/dev`, 'utf8').split('\n').slice(2).join('')).toMatch(/^\s*lo:[^:]*$/);
      await provider.pause(ref, soon());
      expect(await provider.egressPoint(ref, soon())).toBeNull();
      await provider.resume(ref, soon());
      const next = await provider.egressPoint(ref, soon());
      expect(next).not.toBeNull();
      expect(next).not.toEqual(point);
      await provider.destroy(ref, soon());
      expect(await codeOf(provider.egressPoint(ref, soon()))).toBe('sandbox_not_found');
    });

    it('trusts the given authorities, or says that it cannot', async () => {
      const provider = bench.provider();
      const folder = mkdtempSync(path.join(os.tmpdir(), 'longhaul-trust-'));
      chmodSync(folder, 0o755);
      const file = path.join(folder, 'bundle.pem');
      const text = '-----BEGIN CERTIFICATE-----\nZm9yIGEgdGVzdA==\n-----END CERTIFICATE-----\n';
      writeFileSync(file, text, { mode: 0o644 });
      try {
        const ref = await bench.fresh({ trustBundleFile: file });
        expect((await shell(provider, ref, 'cat /etc/ssl/certs/ca-certificates.crt')).stdout).toBe(text);
        await provider.destroy(ref, soon());
      } catch (error) {
        if (!(error instanceof LonghaulError) || error.code !== 'sandbox_unsupported') throw error;
      } finally {
        rmSync(folder, { recursive: true });
      }
    });

    it('opens a port of a program inside, where it says so', async () => {
      const provider = bench.provider();
      const ref = bench.shared();
      if (!bench.can().ports) {
        expect(await codeOf(provider.openPort(ref, 8123, soon()))).toBe('sandbox_unsupported');
        return;
      }
      await provider.execStart(ref, { execId: 'serves', argv: ['sh', '-c', SERVER], timeoutMs: 150_000 }, soon());
      await until('the server answers', async () => {
        const target = await provider.openPort(ref, 8123, soon());
        try {
          if (target.type === 'stream') return (await ask(await target.connect(), 'GET /hello\n')).includes('/hello');
          const answer = await fetch(new URL('/hello', target.url), { headers: target.headers });
          return (await answer.text()).includes('/hello');
        } catch {
          return false;
        }
      });
      await provider.execKill(ref, 'serves', soon());
      for (const port of [0, 65_536, 1.5]) {
        expect([port, await codeOf(provider.openPort(ref, port, soon()))]).toEqual([port, 'sandbox_invalid']);
      }
    });

    it('tells in the list when a lease ends', async () => {
      const provider = bench.provider();
      const ref = await bench.fresh({ ttlMs: 1_800_000 });
      const entry = (await listed(provider, OWNER)).find((each) => each.ref.id === ref.id);
      const leftMs = (entry?.expiresAtMs ?? 0) - Date.now();
      expect(leftMs).toBeGreaterThan(1_500_000);
      expect(leftMs).toBeLessThanOrEqual(1_860_000);
      await provider.destroy(ref, soon());
    });
  });
}
