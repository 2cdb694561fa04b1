/** A piece of a command's output. */
export interface Frame {
  stream: 'out' | 'err';
  data: Buffer;
}

/** The engine puts both streams on one connection: eight bytes (which, three of nothing, length), then that much. */
export async function* readFrames(source: AsyncIterable<Uint8Array>): AsyncIterable<Frame> {
  let head = Buffer.alloc(0);
  let left = 0;
  for await (const chunk of source) {
    let piece = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    while (piece.length > 0) {
      if (left === 0) {
        const missing = 8 - head.length;
        head = Buffer.concat([head, piece.subarray(0, missing)]);
        piece = piece.subarray(missing);
        if (head.length < 8) break;
        left = head.readUInt32BE(4);
        if (left > 0) continue;
      } else {
        const data = piece.subarray(0, left);
        yield { stream: head[0] === 2 ? 'err' : 'out', data };
        left -= data.length;
        piece = piece.subarray(data.length);
      }
      if (left === 0) head = Buffer.alloc(0);
    }
  }
}
