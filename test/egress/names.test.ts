import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { isPublicAddress } from '../../egress/addresses.ts';
import { canonicalHost, parseAuthority } from '../../egress/hosts.ts';
import { readHello } from '../../egress/tls/hello.ts';

describe('a host has one spelling or none', () => {
  it.each([
    ['EXAMPLE.com', 'example.com'],
    ['example.com.', 'example.com'],
    ['münchen.de', 'xn--mnchen-3ya.de'],
    ['MÜNCHEN.DE', 'xn--mnchen-3ya.de'],
    ['ｅxample。com', 'example.com'],
    ['foo_bar.example', 'foo_bar.example'],
    ['8.8.8.8', '8.8.8.8'],
    ['[2606:4700:0:0::1111]', '2606:4700::1111'],
    ['[::FFFF:127.0.0.1]', '::ffff:7f00:1'],
  ])('%s is %s', (given, host) => expect(canonicalHost(given)?.host).toBe(host));

  it.each([
    '',
    '.',
    '..',
    'a..b',
    '.a',
    '-a.com',
    'a-.com',
    'a b',
    'a\tb',
    'a%2eb',
    'exa%6dple.com',
    'a/b',
    'a\\b',
    'a@b',
    'a#b',

    'a?b',
    'a:b',
    '[::1',
    '::1]',
    '[fe80::1%eth0]',
    '[fe80::1%25eth0]',
    '[127.0.0.1]',
    `${'a'.repeat(64)}.com`,
    // IPv4 as some programs read it and others do not.
    '0177.0.0.1',
    '0x7f.0.0.1',
    '127.1',
    '127.0.1',
    '2130706433',
    '0x7f000001',
    '127.0.0.1.',
    '１２７.0.0.1',
    '1.2.3.4.5',

    '256.1.1.1',
    '01.2.3.4',
    'a.1',
    'a.0x1',
    '٣.com\u0000',
    'exa\u00admple.com',
    'a\u200db.com',
    'a\u202eb.com',
  ])('%j is refused', (given) => expect(canonicalHost(given)).toBeNull());

  it('what comes out goes in unchanged', () => {
    fc.assert(
      fc.property(fc.oneof(fc.domain(), fc.ipV4(), fc.ipV6(), fc.string()), (given) => {
        const first = canonicalHost(given);
        if (first === null) return;
        expect(canonicalHost(first.host)).toEqual(first);
      }),
      { numRuns: 500 },
    );
  });

  it('an authority has a port', () => {
    expect(parseAuthority('API.Test.:8443', null)).toEqual({ host: 'api.test', port: 8443 });
    expect(parseAuthority('[::1]:80', null)).toEqual({ host: '::1', port: 80 });
    expect(parseAuthority('api.test', 443)).toEqual({ host: 'api.test', port: 443 });
    for (const given of [
      'api.test',
      'api.test:0',
      'api.test:65536',
      'api.test:',
      'u@api.test:1',
      '::1:80',
      'a:1:2',
      ' a:1',
    ]) {
      expect(parseAuthority(given, null), given).toBeNull();
    }
  });
});

describe('addresses', () => {
  it.each(['8.8.8.8', '1.1.1.1', '172.32.0.1', '100.128.0.1', '2606:4700::1111', '2001:4860:4860::8888'])(
    '%s is public',
    (address) => expect(isPublicAddress(address)).toBe(true),
  );

  it.each([
    '0.0.0.0',
    '0.1.2.3',
    '10.0.0.1',
    '100.64.0.1',
    '100.100.100.200',
    '127.0.0.1',
    '127.255.255.254',
    '168.63.129.16',

    '169.254.169.254',
    '172.16.0.1',
    '172.31.255.255',
    '192.0.0.192',
    '192.168.1.1',
    '198.18.0.1',
    '224.0.0.1',
    '255.255.255.255',

    '::',
    '::1',
    '::7f00:1',
    '::ffff:8.8.8.8',
    '::ffff:127.0.0.1',
    '64:ff9b::808:808',
    '64:ff9b:1::1',
    '100::1',
    '2001::1',

    '2001:db8::1',
    '2002:7f00:1::1',
    '3fff::1',
    '5f00::1',
    'fc00::1',
    'fd00:ec2::254',
    'fe80::1',
    'fe80::1%eth0',
    'fec0::1',
    'ff02::1',

    '',
    'localhost',
    '1.2.3',
  ])('%j is not', (address) => expect(isPublicAddress(address)).toBe(false));
});

function sized(bytes: Buffer, size: number): Buffer {
  const length = Buffer.alloc(size);
  length.writeUIntBE(bytes.length, 0, size);
  return Buffer.concat([length, bytes]);
}

/** Made by hand: version, random, no session, one cipher, no compression, the extensions. */
function hello(extensions: Buffer): Buffer {
  const suites = sized(Buffer.from([0x13, 0x01]), 2);
  const body = Buffer.concat([
    Buffer.alloc(34, 3),
    Buffer.from([0]),
    suites,
    Buffer.from([1, 0]),
    sized(extensions, 2),
  ]);
  return Buffer.concat([Buffer.from([1]), sized(body, 3)]);
}
function named(name: string): Buffer {
  const bytes = Buffer.from(name);
  const list = Buffer.concat([Buffer.from([0, bytes.length + 3, 0, 0, bytes.length]), bytes]);
  return Buffer.concat([Buffer.from([0, 0, 0, list.length]), list]);
}
function records(message: Buffer, size: number): Buffer {
  const parts: Buffer[] = [];
  for (let at = 0; at < message.length; at += size) {
    const part = message.subarray(at, at + size);
    parts.push(Buffer.from([0x16, 3, 1, part.length >> 8, part.length & 0xff]), part);
  }
  return Buffer.concat(parts);
}

describe('the hello of TLS', () => {
  it('is read in one record, in many, and byte by byte', () => {
    for (const size of [1, 3, 40, 16_000]) {
      const whole = records(hello(named('api.test')), size);
      expect(readHello(whole)).toEqual({ type: 'hello', serverName: 'api.test' });
      for (let end = 1; end < whole.length; end += 1) expect(readHello(whole.subarray(0, end)).type).toBe('partial');
    }
    expect(readHello(records(hello(Buffer.alloc(0)), 100))).toEqual({ type: 'hello', serverName: null });
  });

  it('never throws, whatever comes', () => {
    const whole = records(hello(named('api.test')), 50);
    fc.assert(
      fc.property(fc.nat(whole.length - 1), fc.nat(255), fc.uint8Array({ maxLength: 100 }), (at, byte, rest) => {
        const broken = Buffer.from(whole);
        broken[at] = byte;
        expect(readHello(broken).type).toMatch(/hello|partial|malformed/);
        expect(readHello(Buffer.concat([Buffer.from([0x16]), rest])).type).toMatch(/hello|partial|malformed/);
      }),
      { numRuns: 1_000 },
    );
  });
});
