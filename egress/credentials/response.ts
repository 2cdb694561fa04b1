import { Transform } from 'node:stream';
import { createBrotliDecompress, createGunzip, createInflate, createInflateRaw } from 'node:zlib';
import type { ValueMatcher } from '../../telemetry/values.ts';
import { ValueScanner } from '../../telemetry/values.ts';
import type { HeaderList, ResponseHead } from '../decision.ts';
import { headerValue, withoutHeader } from './fill.ts';

/** Encodings that can be read; the broker asks upstream for no other. */
const READABLE = ['gzip', 'x-gzip', 'br', 'deflate'] as const;
type Readable = (typeof READABLE)[number];

/** A response without the values that upstream gave back. */
export function scrubResponse(
  head: ResponseHead,
  matcher: ValueMatcher,
  method: string,
): { headers: HeaderList; body: (() => Transform) | null } {
  const encoding = (headerValue(head.headers, 'content-encoding') ?? 'identity').trim().toLowerCase();
  const headers = head.headers.map(([name, value]) => [name, scrubText(matcher, value)] as const);
  if (method === 'HEAD' || head.status === 204 || head.status === 304 || head.status < 200)
    return { headers, body: null };
  // Digests and lengths are those of what came.
  const changed = withoutHeader(headers, 'content-length', 'content-md5', 'digest', 'content-digest', 'repr-digest');
  if (encoding === 'identity' || encoding === '') return { headers: changed, body: () => scrubBody(matcher) };
  const known = READABLE.find((name) => name === encoding);
  if (known === undefined) return { headers: changed, body: unreadable };
  return { headers: withoutHeader(changed, 'content-encoding'), body: () => readAndScrub(known, matcher) };
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

/** Decompressed on the way: a value in a compressed body cannot be seen. */
function readAndScrub(encoding: Readable, matcher: ValueMatcher): Transform {
  const scanner = new ValueScanner(matcher);
  let reader: ReturnType<typeof createGunzip> | undefined;
  const out = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      reader ??= readerFor(encoding, chunk, out, scanner);
      reader.write(chunk, (error) => done(error ?? null));
    },
    flush(done) {
      if (reader === undefined) return done();
      reader.once('end', () => done(null, scanner.end()));
      reader.end();
    },
    destroy(error, done) {
      reader?.destroy();
      done(error);
    },
  });
  return out;
}

function readerFor(
  encoding: Readable,
  first: Buffer,
  out: Transform,
  scanner: ValueScanner,
): ReturnType<typeof createGunzip> {
  const reader = create(encoding, first);
  reader.on('data', (data: Buffer) => out.push(scanner.feed(data)));
  reader.on('error', (error) => out.destroy(error));
  return reader;
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
