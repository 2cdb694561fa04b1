/** What is read of a TLS hello before anybody answers it. */
export type Hello =
  /** More bytes are needed. */
  { type: 'partial' } | { type: 'hello'; serverName: string | null } | { type: 'malformed' };

export const HELLO_BYTES = 64 * 1024;

class Reader {
  readonly #bytes: Buffer;
  offset = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get left(): number {
    return this.#bytes.length - this.offset;
  }

  number(size: 1 | 2 | 3): number {
    const value = this.#bytes.readUIntBE(this.offset, size);
    this.offset += size;
    return value;
  }

  bytes(size: number): Buffer {
    if (size > this.left) throw new RangeError('short');
    const part = this.#bytes.subarray(this.offset, this.offset + size);
    this.offset += size;
    return part;
  }
}

/** Reads the name a client greets; the hello may come in several records. */
export function readHello(data: Buffer): Hello {
  const message: Buffer[] = [];
  let offset = 0;
  let wanted = 4;
  let size = 0;
  while (size < wanted) {
    if (data.length - offset < 5) return data.length > HELLO_BYTES ? { type: 'malformed' } : { type: 'partial' };
    if (data[offset] !== 0x16) return { type: 'malformed' };
    const recordSize = data.readUInt16BE(offset + 3);
    if (recordSize === 0 || recordSize > 16_384 + 256) return { type: 'malformed' };
    const record = data.subarray(offset + 5, offset + 5 + recordSize);
    message.push(record);
    size += record.length;
    if (size >= 4 && wanted === 4) {
      const start = Buffer.concat(message);
      if (start[0] !== 1) return { type: 'malformed' };
      wanted = 4 + start.readUIntBE(1, 3);
      if (wanted > HELLO_BYTES) return { type: 'malformed' };
    }
    if (record.length < recordSize) return size >= wanted ? parse(message) : { type: 'partial' };
    offset += 5 + recordSize;
  }
  return parse(message);
}

function parse(message: Buffer[]): Hello {
  try {
    const whole = Buffer.concat(message);
    const hello = new Reader(whole.subarray(4, 4 + whole.readUIntBE(1, 3)));
    // Version and random, session id, cipher suites, compression.
    hello.bytes(34);
    hello.bytes(hello.number(1));
    hello.bytes(hello.number(2));
    hello.bytes(hello.number(1));
    if (hello.left === 0) return { type: 'hello', serverName: null };
    const extensions = new Reader(hello.bytes(hello.number(2)));
    while (extensions.left > 0) {
      const type = extensions.number(2);
      const content = extensions.bytes(extensions.number(2));
      if (type === 0) return { type: 'hello', serverName: nameIn(content) };
    }
    return { type: 'hello', serverName: null };
  } catch (error) {
    if (error instanceof RangeError) return { type: 'malformed' };
    throw error;
  }
}

function nameIn(extension: Buffer): string {
  const list = new Reader(extension);
  list.number(2);
  if (list.number(1) !== 0) throw new RangeError('not a host name');
  return list.bytes(list.number(2)).toString('latin1');
}
