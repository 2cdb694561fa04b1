import { createHash } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { deflateRawSync, gzipSync } from 'node:zlib';

/** A tar archive of one file. */
function tarOf(name: string, text: string): Buffer {
  const header = Buffer.alloc(512);
  header.write(name, 0);
  header.write('0000644\0', 100);
  header.write('0000000\0', 108);
  header.write('0000000\0', 116);
  header.write(`${text.length.toString(8).padStart(11, '0')}\0`, 124);
  header.write('00000000000\0', 136);
  header.write('        ', 148);
  header.write('0', 156);
  header.write('ustar\u000000', 257);
  const sum = header.reduce((all, byte) => all + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  return Buffer.concat([header, Buffer.from(text), Buffer.alloc((512 - (text.length % 512)) % 512)]);
}

/** npm's registry with one package, `@scope/hello`, which has a program `hello-npm`. */
export function npmRegistry(origin: string, req: IncomingMessage, res: ServerResponse): void {
  const about = { name: '@scope/hello', version: '1.2.3', main: 'index.js', bin: { 'hello-npm': 'cli.js' } };
  const archive = gzipSync(
    Buffer.concat([
      tarOf('package/package.json', JSON.stringify(about)),
      tarOf('package/index.js', 'module.exports = "hello from npm";'),
      tarOf('package/cli.js', '#!/usr/bin/env node\nconsole.log(require("./index.js"));\n'),
      Buffer.alloc(1024),
    ]),
  );
  if (req.url?.endsWith('.tgz'))
    return void res.writeHead(200, { 'content-type': 'application/octet-stream' }).end(archive);
  const integrity = `sha512-${createHash('sha512').update(archive).digest('base64')}`;
  const tarball = `${origin}/@scope/hello/-/hello-1.2.3.tgz`;
  const version = { ...about, dist: { tarball, integrity } };
  const document = { name: '@scope/hello', 'dist-tags': { latest: '1.2.3' }, versions: { '1.2.3': version } };
  res.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(document));
}

/** A wheel is a zip archive; one file after the other, then their directory. */
function wheel(): Buffer {
  const files: [string, string][] = [
    ['hello_pip.py', 'WORDS = "hello from pip"\n'],
    ['hello_pip-1.0.dist-info/METADATA', 'Metadata-Version: 2.1\nName: hello-pip\nVersion: 1.0\n'],
    [
      'hello_pip-1.0.dist-info/WHEEL',
      'Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n',
    ],
    [
      'hello_pip-1.0.dist-info/RECORD',
      'hello_pip.py,,\nhello_pip-1.0.dist-info/METADATA,,\nhello_pip-1.0.dist-info/WHEEL,,\nhello_pip-1.0.dist-info/RECORD,,\n',
    ],
  ];
  const parts: Buffer[] = [];
  const entries: Buffer[] = [];
  let offset = 0;
  for (const [name, text] of files) {
    const data = deflateRawSync(text);
    const fields = Buffer.alloc(22);
    fields.writeUInt16LE(20, 0);
    fields.writeUInt16LE(8, 4);
    fields.writeUInt16LE(0x21, 8);
    fields.writeUInt32LE(crc32(Buffer.from(text)), 10);
    fields.writeUInt32LE(data.length, 14);
    fields.writeUInt32LE(text.length, 18);
    const lengths = Buffer.alloc(4);
    lengths.writeUInt16LE(name.length, 0);
    const local = Buffer.concat([Buffer.from('PK\u0003\u0004'), fields, lengths, Buffer.from(name), data]);
    const place = Buffer.alloc(14);
    place.writeUInt32LE(offset, 10);
    entries.push(
      Buffer.concat([Buffer.from('PK\u0001\u0002'), Buffer.from([20, 0]), fields, lengths, place, Buffer.from(name)]),
    );
    parts.push(local);
    offset += local.length;
  }
  const directory = Buffer.concat(entries);
  const end = Buffer.alloc(18);
  end.writeUInt16LE(files.length, 4);
  end.writeUInt16LE(files.length, 6);
  end.writeUInt32LE(directory.length, 8);
  end.writeUInt32LE(offset, 12);
  return Buffer.concat([...parts, directory, Buffer.from('PK\u0005\u0006'), end]);
}

function crc32(bytes: Buffer): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return (crc ^ 0xffffffff) >>> 0;
}

/** A Python index with one package, `hello-pip`. */
export function pipIndex(req: IncomingMessage, res: ServerResponse): void {
  if (req.url?.endsWith('.whl')) return void res.writeHead(200, { 'content-type': 'application/zip' }).end(wheel());
  const page =
    '<!DOCTYPE html><html><body><a href="/files/hello_pip-1.0-py3-none-any.whl">hello_pip-1.0-py3-none-any.whl</a></body></html>';
  res.writeHead(200, { 'content-type': 'text/html' }).end(page);
}
