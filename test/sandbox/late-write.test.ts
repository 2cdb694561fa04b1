import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { SandboxRef } from '../../activities/sandbox/port.ts';
import { writeCommand } from '../../activities/sandbox/write-command.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { follow, LONG_MS, runIn, smallSpec, soon, until } from '../support/sandbox-commands.ts';
import { makeBed, SANDBOX_MODES, type SandboxBed } from '../support/sandbox-modes.ts';
import type { SandboxProcess } from '../support/sandbox-process.ts';

/** Large enough for the write to take a while. */
const EARLY = 'early\n'.padEnd(LIMITS.fileWriteBytes / 2, 'e');
const LATER = 'later\n';
const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex');

/** How far a write got, as files on the disk tell; some of it is over before anybody can look, so there are rounds. */
const ROUNDS = 5;
const POINTS: Record<string, (execs: string, workspace: string) => boolean> = {
  'before anything': () => true,
  'with its content handed over': (execs) => names(execs).some((name) => name.startsWith('stdin')),
  'with its command asked for': (execs) => names(execs).includes('request'),
  'with its command begun': (execs) => names(execs).includes('claim'),
  'with half of the file written': (_execs, workspace) => names(workspace).some((name) => name.startsWith('file.')),
  'with its command ended': (execs) => names(execs).includes('exit.json'),
};

function names(folder: string): string[] {
  return existsSync(folder) ? readdirSync(folder) : [];
}

for (const mode of SANDBOX_MODES) {
  describe(`a worker that sleeps in a file write, ${mode.name}`, { timeout: LONG_MS * 3 }, () => {
    let bed: SandboxBed;
    let ref: SandboxRef;
    let sleeper: SandboxProcess;
    let worker: SandboxProcess;
    beforeAll(async () => {
      bed = makeBed(mode);
      ref = await bed.provider.create(smallSpec('escape', { diskBytes: 256 << 20 }), 'k', soon());
      sleeper = bed.worker();
      worker = bed.worker();
    });
    afterAll(async () => {
      process.kill(sleeper.pid, 'SIGCONT');
      await bed.close();
    });
    const box = (...parts: string[]): string => path.join(bed.rootDir, ref.id, ...parts);
    const content = async (): Promise<string> =>
      Buffer.from(await bed.provider.readFile(ref, '/workspace/file', 100, soon())).toString();
    const write = (by: SandboxProcess, execId: string, text: string): ReturnType<SandboxProcess['tool']> =>
      by.tool('write', ref, execId, { file_path: 'file', content: text });

    it.each(Object.entries(POINTS))('cannot write it over a later one: %s', async (name, isThere) => {
      for (let round = 0; round < ROUNDS; round += 1) {
        const execId = `write-${name.replaceAll(' ', '-')}-${round}`;
        let isOver = false;
        const late = write(sleeper, execId, EARLY).finally(() => {
          isOver = true;
        });
        const isReached = (): boolean => isOver || isThere(box('execs', `x-${execId}`), box('box', 'workspace'));
        await until(name, () => Promise.resolve(isReached()), 0);
        process.kill(sleeper.pid, 'SIGSTOP');
        expect(await write(worker, execId, EARLY)).toMatchObject({ isError: false });
        expect(await write(worker, `${execId}-later`, LATER)).toMatchObject({ isError: false });
        process.kill(sleeper.pid, 'SIGCONT');
        expect(await late).toMatchObject({ kind: 'done', isError: false });
        expect(await content()).toBe(LATER);
        expect(names(box('box', 'workspace'))).toEqual(['file']);
      }
    });

    it('cannot write after the effect was stopped', async () => {
      await write(worker, 'before', LATER);
      process.kill(sleeper.pid, 'SIGSTOP');
      const late = write(sleeper, 'stopped', EARLY);
      await bed.provider.execKill(ref, 'stopped', soon());
      process.kill(sleeper.pid, 'SIGCONT');
      expect(await late).toMatchObject({ kind: 'done', isError: true });
      expect(await content()).toBe(LATER);
    });

    it('cannot edit over a later edit', async () => {
      await write(worker, 'original', 'one\n');
      const edit = (by: SandboxProcess, execId: string, from: string, to: string): ReturnType<SandboxProcess['tool']> =>
        by.tool('edit', ref, execId, { file_path: 'file', old_string: from, new_string: to });
      const late = edit(sleeper, 'edit', 'one', 'two');
      await until('it begins', () => Promise.resolve(names(box('execs', 'x-edit')).includes('claim')));
      process.kill(sleeper.pid, 'SIGSTOP');
      // As the worker does that takes over: what the ledger holds of the plan tells it to look for the write first.
      await follow(bed.provider, ref, 'edit');
      expect(await edit(worker, 'back', 'two', 'one')).toMatchObject({ isError: false });
      process.kill(sleeper.pid, 'SIGCONT');
      expect(await late).toMatchObject({ isError: false });
      expect(await content()).toBe('one\n');
    });

    it('a file that is no longer what was read is left alone', async () => {
      await write(worker, 'again', 'one\n');
      for (const [was, expected] of [
        ['zero\n', 'one\n'],
        ['one\n', 'two\n'],
      ] as const) {
        const argv = writeCommand('/workspace/file', { overSha256: sha256(was) });
        const stdin = Buffer.from('two\n');
        const { status, stderr } = await runIn(bed.provider, ref, argv, { execId: `over-${was.trim()}`, stdin });
        expect([status, stderr]).toEqual([
          { state: 'exited', exitCode: was === 'one\n' ? 0 : 1, signal: null },
          was === 'one\n' ? '' : 'changed meanwhile\n',
        ]);
        expect(await content()).toBe(expected);
        expect(names(box('box', 'workspace'))).toEqual(['file']);
      }
    });

    it('a write whose sandbox died under it is tried again under the next id', async () => {
      await bed.provider.execStart(ref, { execId: 'dead', argv: ['sleep', '600'], timeoutMs: 600_000 }, soon());
      const { holder } = JSON.parse(readFileSync(box('sandbox.json'), 'utf8')) as { holder: { pid: number } };
      process.kill(holder.pid, 'SIGKILL');
      expect((await follow(bed.provider, ref, 'dead')).status).toEqual({ state: 'lost' });
      await bed.provider.resume(ref, soon());
      expect(await write(worker, 'dead', LATER)).toMatchObject({ kind: 'done', isError: false });
      expect((await follow(bed.provider, ref, 'dead.1')).status).toMatchObject({ exitCode: 0 });
      expect(await content()).toBe(LATER);
    });
  });
}
