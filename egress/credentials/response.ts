import { Transform, type TransformCallback } from 'node:stream';
import { createBrotliDecompress, createGunzip, createInflate, createInflateRaw } from 'node:zlib';
import type { ValueMatcher } from '../../telemetry/values.ts';
import { ValueScanner } from '../../telemetry/values.ts';
import type { HeaderList, ResponseHead } from '../decision.ts';
import { withoutHeader } from './fill.ts';

/** Encodings that can be read; the broker asks upstream for no other. */
const READABLE = ['gzip', 'x-gzip', 'br', 'deflate'] as const;
type Readable = (typeof READABLE)[number];

/** A response without the values that upstream gave back. */
export function scrubResponse(
  head: ResponseHead,
  matcher: ValueMatcher,
  method: string,
): { headers: HeaderList; body: (() => Transform) | null } {
  const encodings = head.headers.filter(([name]) => name === 'content-encoding').map(([, value]) => value);
  // Several lines are one list: a second line must not hide behind the first.
  const encoding = encodings.join(',').trim().toLowerCase() || 'identity';
  const headers = head.headers.map(([name, value]) => [name, scrubText(matcher, value)] as const);
  if (method === 'HEAD' || head.status === 204 || head.status === 304 || head.status < 200)
    return { headers, body: null };
  // Digests and lengths are those of what came.
  const changed = withoutHeader(headers, 'content-length', 'content-md5', 'digest', 'content-digest', 'repr-digest');
  if (encoding === 'identity') return { headers: changed, body: () => scrubBody(matcher) };
  const known = READABLE.find((name) => name === encoding);
  if (known === undefined) return { headers: changed, body: unreadable };
  return { headers: withoutHeader(changed, 'content-encoding'), body: () => new ReadAndScrub(known, matcher) };
}

/** Nobody asked for this encoding, and what cannot be read may hold anything. */
function unreadable(): Transform {
  return new Transform({
    transform(_chunk, _encoding, done) {
      done(
        Object.assign(new Error('the response has an encoding that cannot be read'), { code: 'response_unreadable' }),
      );
    },
  });
}

/** Header values are bytes, one a character. */
function scrubText(matcher: ValueMatcher, text: string): string {
  const scanner = new ValueScanner(matcher);
  const clean = Buffer.concat([scanner.feed(Buffer.from(text, 'latin1')), scanner.end()]);
  return scanner.redactions === 0 ? text : clean.toString('latin1');
}

function scrubBody(matcher: ValueMatcher): Transform {
  const scanner = new ValueScanner(matcher);
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      done(null, scanner.feed(chunk));
    },
    flush(done) {
      done(null, scanner.end());
    },
  });
}

/** Decompressed on the way: a value in a compressed body cannot be seen. No faster than the reader takes it: some bytes become gigabytes. */
class ReadAndScrub extends Transform {
  readonly #encoding: Readable;
  readonly #scanner: ValueScanner;
  #reader: ReturnType<typeof createGunzip> | undefined;

  constructor(encoding: Readable, matcher: ValueMatcher) {
    super();
    this.#encoding = encoding;
    this.#scanner = new ValueScanner(matcher);
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    this.#reader ??= this.#open(chunk);
    this.#reader.write(chunk, (error) => done(error ?? null));
  }

  override _flush(done: TransformCallback): void {
    if (this.#reader === undefined) return done();
    this.#reader.once('end', () => done(null, this.#scanner.end()));
    this.#reader.end();
  }

  override _read(size: number): void {
    super._read(size);
    this.#reader?.resume();
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#reader?.destroy();
    done(error);
  }

  #open(first: Buffer): ReturnType<typeof createGunzip> {
    const reader = create(this.#encoding, first);
    reader.on('data', (data: Buffer) => {
      if (!this.push(this.#scanner.feed(data))) reader.pause();
    });
    reader.on('error', (error) => this.destroy(error));
    return reader;
  }
}

function create(encoding: Readable, first: Buffer): ReturnType<typeof createGunzip> {
  switch (encoding) {
    case 'gzip':
    case 'x-gzip':
      return createGunzip();
    case 'br':
      return createBrotliDecompress();
    case 'deflate':
      // Some servers leave the header of zlib out.
      return ((first[0] ?? 0) & 0x0f) === 0x08 ? createInflate() : createInflateRaw();
  }
}
