const BLOCK = 512;

/** One entry of an archive; a folder without content. */
export interface TarEntry {
  /** Without a leading slash, at most 100 bytes. */
  path: string;
  mode: number;
  uid: number;
  gid: number;
  mtimeMs: number;
  content?: Uint8Array;
}

/** A small archive (ustar), as the engine takes files and gives them. */
export function tar(entries: TarEntry[]): Buffer {
  const blocks = entries.flatMap((entry) => {
    const content = entry.content ?? new Uint8Array(0);
    const padding = (BLOCK - (content.length % BLOCK)) % BLOCK;
    return [header(entry, content.length), content, new Uint8Array(padding)];
  });
  return Buffer.concat([...blocks, new Uint8Array(2 * BLOCK)]);
}

function header(entry: TarEntry, sizeBytes: number): Buffer {
  const block = Buffer.alloc(BLOCK);
  const isFolder = entry.content === undefined;
  block.write(isFolder ? `${entry.path}/` : entry.path, 0, 100);
  const octal = (value: number, offset: number, length: number): void => {
    block.write(`${value.toString(8).padStart(length - 1, '0')}\0`, offset, 'latin1');
  };
  octal(entry.mode, 100, 8);
  octal(entry.uid, 108, 8);
  octal(entry.gid, 116, 8);
  octal(sizeBytes, 124, 12);
  octal(Math.floor(entry.mtimeMs / 1_000), 136, 12);
  block.write(isFolder ? '5' : '0', 156);
  block.write('ustar', 257, 'latin1');
  block.write('00', 263, 'latin1');
  // Summed with its own field as spaces.
  block.fill(' ', 148, 156);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return block;
}

/** Up to `maxBytes` of the archive's first file from `offset` on; stops reading then. */
export async function readTarFile(
  archive: AsyncIterable<Uint8Array>,
  offset: number,
  maxBytes: number,
): Promise<Buffer> {
  const head: Uint8Array[] = [];
  const found: Uint8Array[] = [];
  let headBytes = 0;
  let [position, end] = [0, Infinity];
  for await (let piece of archive) {
    if (headBytes < BLOCK) {
      head.push(piece.subarray(0, BLOCK - headBytes));
      const taken = Math.min(piece.length, BLOCK - headBytes);
      headBytes += taken;
      piece = piece.subarray(taken);
      if (headBytes < BLOCK) continue;
      const size = Number.parseInt(Buffer.concat(head).subarray(124, 136).toString('latin1'), 8);
      end = Math.min(size, offset + maxBytes);
    }
    const from = Math.max(0, offset - position);
    const to = Math.min(piece.length, end - position);
    if (to > from) found.push(piece.subarray(from, to));
    position += piece.length;
    if (position >= end) break;
  }
  return Buffer.concat(found);
}
