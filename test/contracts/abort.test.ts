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

describe('signals', () => {
  it('fire although nobody but the one who waits knows them', async () => {
    const args = ['--expose-gc', '--input-type=module', '-e', PROGRAM, BUILT];
    const { stdout } = await promisify(execFile)(process.execPath, args, { timeout: 60_000 });
    expect(JSON.parse(stdout)).toEqual(['no answer within 300 ms', 'asked to']);
  });
});
