import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';

const BUILT = fileURLToPath(new URL('../../dist/contracts/abort.js', import.meta.url));

/** In a process of its own, which collects its garbage while somebody waits. */
const PROGRAM = `
  const { anyAbort, within } = await import(process.argv[1]);
  const [never, source] = [new AbortController(), new AbortController()];
  const untilAborted = (signal) =>
    new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason), { once: true }));
  const waits = [
    within(never.signal, 300, untilAborted),
    untilAborted(anyAbort([never.signal, source.signal])),
  ];
  globalThis.gc();
  setTimeout(() => globalThis.gc(), 100);
  setTimeout(() => source.abort(new Error('asked to')), 300);
  const ends = await Promise.allSettled(waits);
  process.stdout.write(JSON.stringify(ends.map(({ reason }) => reason.message)));
`;

/** As an activity does that asks a provider again and again: one signal, each time with another deadline. */
const MANY = `
  const { anyAbort } = await import(process.argv[1]);
  const work = new AbortController();
  const joined = Array.from({ length: 50 }, () => anyAbort([work.signal, AbortSignal.timeout(60_000)]));
  work.abort(new Error('over'));
  process.stdout.write(JSON.stringify(joined.map(({ reason }) => reason.message)));
`;

describe('signals', () => {
  it('fire although nobody but the one who waits knows them', async () => {
    const args = ['--expose-gc', '--input-type=module', '-e', PROGRAM, BUILT];
    const { stdout } = await promisify(execFile)(process.execPath, args, { timeout: 60_000 });
    expect(JSON.parse(stdout)).toEqual(['no answer within 300 ms', 'asked to']);
  });

  it('are joined with one as often as one likes, without a warning', async () => {
    const args = ['--input-type=module', '-e', MANY, BUILT];
    const { stdout, stderr } = await promisify(execFile)(process.execPath, args, { timeout: 60_000 });
    expect(JSON.parse(stdout)).toEqual(Array.from({ length: 50 }, () => 'over'));
    expect(stderr).toBe('');
  });
});
