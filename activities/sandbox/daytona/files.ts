import type { Sandbox } from '@daytonaio/sdk';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import type { FileStat } from '../port.ts';
import { writeCommand } from '../write-command.ts';
import { download, runInside, withUpload } from './inside.ts';

const ANSWER_BYTES = 4_096;

/** Work on one sandbox, with its errors made the port's. */
export type Within = <T>(what: string, work: (sandbox: Sandbox) => Promise<T>) => Promise<T>;

function refused(path: string, stderr: Buffer): LonghaulError {
  const reason = stderr.toString().trim().split('\n').at(-1) ?? '';
  return new LonghaulError('sandbox_invalid', `${path}: ${reason.slice(0, 300)}`);
}

/** By the vendor's bulk download: nothing of it is held. */
export async function* readStream(
  within: Within,
  path: string,
  found: FileStat | null,
  signal: AbortSignal,
): AsyncIterable<Uint8Array> {
  if (found?.type !== 'file') throw new LonghaulError('sandbox_invalid', `${path}: is no file`);
  const pieces = await within('read a file', (sandbox) =>
    Promise.resolve(download(sandbox, path, found.sizeBytes, signal)[Symbol.asyncIterator]()),
  );
  try {
    for (;;) {
      const next = await within('read a file', () => pieces.next());
      if (next.done === true) return;
      yield next.value;
    }
  } finally {
    await pieces.return?.();
  }
}

/** By the vendor's bulk upload to a place of its own; what arrived whole replaces the file in one step. */
export async function writeStream(
  within: Within,
  path: string,
  content: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): Promise<number> {
  return within('write a file', (sandbox) =>
    withUpload(sandbox, content, signal, async (staged, sizeBytes) => {
      const script = `[ "$(stat -c %s -- "$1")" = "$2" ] || { echo 'did not arrive whole' >&2; exit 75; }; shift 2; exec "$@" < ${staged}`;
      const argv = ['sh', '-c', script, 'install', staged, String(sizeBytes), ...writeCommand(path)];
      const { code, stderr } = await runInside(sandbox, argv, { maxBytes: ANSWER_BYTES, signal });
      if (code === 75) throw new LonghaulError('sandbox_unavailable', `${path}: ${stderr.toString().trim()}`);
      if (code !== 0) throw refused(path, stderr);
      return sizeBytes;
    }),
  );
}

export async function remove(within: Within, path: string, signal: AbortSignal): Promise<boolean> {
  const script = '[ -e "$1" ] || [ -L "$1" ] || { echo absent; exit 0; }; exec rm -rf -- "$1"';
  return within('remove a file', async (sandbox) => {
    const argv = ['sh', '-c', script, 'remove', path];
    const { code, stdout, stderr } = await runInside(sandbox, argv, { maxBytes: ANSWER_BYTES, signal });
    if (code !== 0) throw refused(path, stderr);
    return stdout.toString().trim() !== 'absent';
  });
}
