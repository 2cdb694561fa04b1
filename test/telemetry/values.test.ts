import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ValueMatcher, ValueScanner } from '../../telemetry/values.ts';

const STAND_IN = 'ghp_000000000000000000000000000000000000';

const everyByte = (text: string, write: (byte: number) => string): string =>
  [...Buffer.from(text)].map((byte) => write(byte)).join('');
const hex = (byte: number): string => byte.toString(16).padStart(2, '0');
const wrapped = (text: string, columns: number): string => text.replaceAll(new RegExp(`(.{${columns}})`, 'g'), '$1\n');

/** Ways in which a value is found again in what a command or a server shows, with something before and after it. */
const ENCODINGS: Record<string, (before: string, value: string, after: string) => string> = {
  plain: (before, value, after) => before + value + after,
  base64: (before, value, after) => Buffer.from(before + value + after).toString('base64'),
  'base64 alone': (_before, value) => Buffer.from(value).toString('base64'),
  base64url: (before, value, after) => Buffer.from(before + value + after).toString('base64url'),
  'base64 in lines': (before, value, after) => wrapped(Buffer.from(before + value + after).toString('base64'), 76),
  'base64 in a query': (before, value, after) =>
    encodeURIComponent(Buffer.from(before + value + after).toString('base64')),
  hex: (before, value, after) => Buffer.from(before + value + after).toString('hex'),
  HEX: (before, value, after) =>
    Buffer.from(before + value + after)
      .toString('hex')
      .toUpperCase(),
  percent: (before, value, after) => encodeURIComponent(before + value + after),
  'percent, every byte': (before, value, after) =>
    before.replaceAll('%', '') + everyByte(value, (byte) => `%${hex(byte).toUpperCase()}`) + after.replaceAll('%', ''),
  'percent twice': (before, value, after) => encodeURIComponent(encodeURIComponent(before + value + after)),
  json: (before, value, after) => JSON.stringify({ a: before + value + after }),
  'json in json': (before, value, after) => JSON.stringify(JSON.stringify({ a: before + value + after })),
  'json, every unit': (_before, value, after) =>
    `"${[...Array(value.length).keys()].map((at) => `\\u${value.charCodeAt(at).toString(16).padStart(4, '0')}`).join('')}"${after}`,
};

const context = fc.string({ unit: 'grapheme', maxLength: 12 }).filter((text) => Buffer.from(text).toString() === text);
const value = fc.oneof(
  fc.string({ unit: fc.constantFrom(...'abcdefXYZ0123456789_-'.split('')), minLength: 16, maxLength: 60 }),
  fc.string({ unit: 'binary-ascii', minLength: 16, maxLength: 40 }).filter((text) => /^[!-~][ -~\n]*[!-~]$/.test(text)),
  fc
    .string({ unit: 'grapheme', minLength: 12, maxLength: 30 })
    .filter((text) => Buffer.from(text).toString() === text && text.trim() === text && !/[\r\n]/.test(text)),
);

function stream(matcher: ValueMatcher, text: string, cuts: number[]): string {
  const bytes = Buffer.from(text);
  const scanner = new ValueScanner(matcher);
  const borders = [...new Set(cuts.map((cut) => cut % (bytes.length + 1)))].toSorted((a, b) => a - b);
  const parts = [0, ...borders].map((start, at) => bytes.subarray(start, borders[at] ?? bytes.length));
  return Buffer.concat([...parts.map((part) => Buffer.from(scanner.feed(part))), scanner.end()]).toString();
}

/** What a reader could make of the text with the usual tools. */
function readings(text: string): string[] {
  const found = [text];
  const attempt = (read: () => string): void => {
    try {
      found.push(read());
    } catch {
      // Not that encoding any more.
    }
  };
  attempt(() => decodeURIComponent(text));
  attempt(() => decodeURIComponent(decodeURIComponent(text)));
  attempt(() => Buffer.from(decodeURIComponent(text), 'base64').toString());
  attempt(() => JSON.stringify(JSON.parse(text)));
  attempt(() => (JSON.parse(text) as { a: string }).a);
  attempt(() => (JSON.parse(JSON.parse(text) as string) as { a: string }).a);
  attempt(() => JSON.parse(/^"[^"]*"/.exec(text)?.[0] ?? '') as string);
  for (const encoding of ['base64', 'hex'] as const) attempt(() => Buffer.from(text, encoding).toString());
  return found.filter((reading) => typeof reading === 'string');
}

describe('known values', () => {
  it.each(Object.keys(ENCODINGS))(
    'none survives as %s, wherever the pieces are cut',
    (name) => {
      const encode = ENCODINGS[name]!;
      fc.assert(
        fc.property(context, value, context, fc.array(fc.nat(), { maxLength: 6 }), (before, secret, after, cuts) => {
          fc.pre(!(before + after).includes(secret) && !before.endsWith('\\') && !before.endsWith('%'));
          const text = encode(before, secret, after);
          // The control: it is there to be found.
          expect(
            readings(text).some(
              (reading) => reading.includes(secret) || reading.includes(JSON.stringify(secret).slice(1, -1)),
            ),
          ).toBe(true);
          const matcher = new ValueMatcher([{ value: secret, standIn: STAND_IN }]);
          for (const clean of [matcher.redact(text).text, stream(matcher, text, cuts)]) {
            for (const reading of readings(clean)) expect(reading).not.toContain(secret);
          }
        }),
        { numRuns: 80 },
      );
    },
    60_000,
  );

  it('gives the stand-in for the value, inside Basic too', () => {
    const secret = 'ghp_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789';
    const matcher = new ValueMatcher([{ value: secret, standIn: STAND_IN }]);
    for (const user of ['', 'a', 'me', 'git', 'x-access-token']) {
      const shown = matcher.redact(`Basic ${Buffer.from(`${user}:${secret}`).toString('base64')}`).text;
      expect(Buffer.from(shown.slice(6), 'base64').toString()).toBe(`${user}:${STAND_IN}`);
    }
    // Also where value and stand-in differ in length, and the text goes on or ends.
    for (const length of [8, 9, 10, 11, 35, 41]) {
      const short = 'Zx9-'.repeat(11).slice(0, length);
      const other = new ValueMatcher([{ value: short, standIn: STAND_IN }]);
      for (const user of ['', 'a', 'ab', 'abc']) {
        const header = `{"a":"Basic ${Buffer.from(`${user}:${short}`).toString('base64')}"}`;
        const [, encoded = ''] = /Basic ([^"]*)/.exec(stream(other, header, [length, 20, 21])) ?? [];
        expect(Buffer.from(encoded, 'base64').toString()).toBe(`${user}:${STAND_IN}`);
      }
    }
    expect(matcher.redact(`{"token":"${secret}"}`)).toEqual({ text: `{"token":"${STAND_IN}"}`, redactions: 1 });
  });

  it('finds a value that has something like an escape in it, with every character escaped', () => {
    for (const secret of ['%00 secret %41', 'a\\u0041bcdefgh\\n']) {
      const matcher = new ValueMatcher([{ value: secret, standIn: STAND_IN }]);
      const units = everyByte(secret, (byte) => `\\u00${hex(byte)}`);
      const bytes = everyByte(secret, (byte) => `%${hex(byte)}`);
      for (const text of [secret, units, bytes]) expect(matcher.redact(`<${text}>`).text).toBe(`<${STAND_IN}>`);
    }
  });

  it('finds each of hundreds of long values, and stays small', () => {
    const values = Array.from({ length: 200 }, (_, index) => ({
      value: Array.from(
        { length: 200 },
        (_each, at) => 'abcdefghijklmnop'[(index * 7 + at * at * (index + 3)) % 16],
      ).join(''),
      standIn: STAND_IN,
    }));
    const before = process.memoryUsage().arrayBuffers;
    const matcher = new ValueMatcher(values);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(150 * 1024 * 1024);
    for (const { value: secret } of values) {
      for (const form of [secret, Buffer.from(`u:${secret}`).toString('base64'), Buffer.from(secret).toString('hex')]) {
        const { text, redactions } = matcher.redact(`<${form}>`);
        expect(redactions).toBe(1);
        expect(text).not.toContain(form.slice(8, 40));
      }
    }
  });

  it('holds nothing back at the end of a server-sent event', () => {
    const scanner = new ValueScanner(new ValueMatcher([{ value: 'data: secret-of-mine', standIn: STAND_IN }]));
    for (const event of ['data: one\n\n', 'data: two\r\n\r\n', 'data: secret\n\n', ': ping\n\n']) {
      expect(scanner.feed(Buffer.from(event)).toString()).toBe(event);
    }
  });

  it('changes nothing where no value is', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 2_000 }), fc.array(fc.nat(), { maxLength: 6 }), (bytes, cuts) => {
        const matcher = new ValueMatcher([{ value: 'canary-0123456789abcdef', standIn: STAND_IN }]);
        const text = Buffer.from(bytes).toString('latin1');
        expect(stream(matcher, text, cuts)).toBe(text);
      }),
    );
  });

  it('lets go of what is too long to be one', () => {
    const matcher = new ValueMatcher([{ value: 'canary-0123456789abcdef', standIn: STAND_IN }]);
    const text = `canary-${'\\'.repeat(200_000)}x${'\n'.repeat(200_000)}canary-0123456789abcdef.`;
    expect(stream(matcher, text, [])).toBe(text.replace('canary-0123456789abcdef', STAND_IN));
  });
});
