import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';

/** What the broker is measured in front of. A process of its own. Arguments: files of key and certificate. */
const [keyFile = '', certFile = ''] = process.argv.slice(2);
const PIECE = Buffer.alloc(256 * 1024, 'x');
const EVENT_EVERY_MS = 20;

const server = createServer({ key: readFileSync(keyFile), cert: readFileSync(certFile) }, (req, res) => {
  const url = new URL(req.url ?? '/', 'https://bench.test');
  const count = Number(url.searchParams.get('n') ?? 0);
  if (url.pathname === '/pieces') {
    let left = count;
    const more = (): void => {
      while (left > 0) {
        left -= 1;
        if (!res.write(PIECE)) {
          res.once('drain', more);
          return;
        }
      }
      res.end();
    };
    more();
  } else if (url.pathname === '/events') {
    res.writeHead(200, { 'content-type': 'text/event-stream' });
    let left = count;
    const timer = setInterval(() => {
      // A clock that all processes of the machine share.
      res.write(`data: ${process.hrtime.bigint()}\n\n`);
      left -= 1;
      if (left > 0) return;
      clearInterval(timer);
      res.end();
    }, EVENT_EVERY_MS);
  } else res.writeHead(200, { 'content-length': 2 }).end('ok');
});
server.keepAliveTimeout = 60_000;
server.listen(0, '127.0.0.1', () => process.send?.((server.address() as AddressInfo).port));
process.on('disconnect', () => process.exit(0));
