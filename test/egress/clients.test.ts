import { createHash, randomBytes } from 'node:crypto';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { ServerHttp2Stream } from 'node:http2';
import http2 from 'node:http2';
import os from 'node:os';
import path from 'node:path';
import type { Socket } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { EgressBed, plainUpstream, secureUpstream, type EgressSandbox, type Upstream } from '../support/egress-bed.ts';
import { LONG_MS } from '../support/sandbox-commands.ts';
import { SANDBOX_MODES } from '../support/sandbox-modes.ts';

const BIG = randomBytes(4 * 1024 * 1024);
const sha256 = (bytes: Buffer | string): string => createHash('sha256').update(bytes).digest('hex');

/** A repository as plain files, which is how git can read it without a server of its own. */
function repository(): { folder: string; files: (name: string) => Buffer | null } {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'longhaul-git-'));
  const git = (...args: string[]): void =>
    void execFileSync('git', ['-c', 'user.name=T', '-c', 'user.email=t@example.com', ...args], {
      cwd: folder,
      stdio: 'pipe',
    });
  git('init', '-q', '-b', 'main');
  git('commit', '-q', '--allow-empty', '-m', 'first commit of the test');
  git('update-server-info');
  return {
    folder,
    files: (name) => {
      try {
        return readFileSync(path.join(folder, '.git', name));
      } catch {
        return null;
      }
    },
  };
}

describe.each(SANDBOX_MODES)('clients in a sandbox, $name', (mode) => {
  let bed: EgressBed;
  let sandbox: EgressSandbox;
  let api: Upstream;
  let plain: Upstream;
  const repo = repository();
  /** Told by the test when the next part of a stream may go. */
  let goOn: (() => void) | undefined;
  let wentOn = Promise.resolve();
  let received = '';

  const routes = (req: IncomingMessage, res: ServerResponse): void => {
    const url = req.url ?? '';
    if (url.startsWith('/repo.git/')) {
      const file = repo.files(url.slice('/repo.git/'.length).split('?')[0] ?? '');
      res.writeHead(file === null ? 404 : 200).end(file);
    } else if (url === '/big') res.writeHead(200).end(BIG);
    else if (url === '/upload') {
      const hash = createHash('sha256');
      req.on('data', (chunk: Buffer) => hash.update(chunk)).on('end', () => res.end(hash.digest('hex')));
    } else if (url === '/sse') {
      res.writeHead(200, { 'content-type': 'text/event-stream' });
      res.write('data: first\n\n');
      void wentOn.then(() => res.end('data: second\n\n'));
    } else if (url === '/trailers') {
      res.writeHead(200, { trailer: 'x-checksum' });
      res.write('body');
      res.addTrailers({ 'x-checksum': 'abc' });
      res.end();
    } else if (url === '/204') res.writeHead(204).end();
    else if (url === '/304') res.writeHead(304, { etag: '"x"' }).end();
    else if (url === '/early') {
      res.writeEarlyHints({ link: '</style.css>; rel=preload' });
      res.end('late');
    } else if (url === '/duplicates')
      res
        .writeHead(
          200,
          [
            ['set-cookie', 'a=1'],
            ['set-cookie', 'b=2'],
          ].flat(),
        )
        .end();
    else
      res.writeHead(200, { 'content-length': 4, 'x-length': 'kept' }).end(req.method === 'HEAD' ? undefined : 'body');
  };

  beforeAll(async () => {
    const rules = {
      hosts: { 'api.test': {}, 'pinned.test': { passthrough: true as const } },
      addresses: ['127.0.0.1'],
    };
    bed = await EgressBed.start({ mode, rules });
    bed.name('api.test', '127.0.0.1');
    bed.name('pinned.test', '127.0.0.1');
    api = await secureUpstream(bed.authority.issue('api.test'), routes);
    // Bytes back as they come: for sockets that were upgraded, and for streams of HTTP/2.
    api.server.on('upgrade', (req: IncomingMessage, socket: Socket) => {
      received = String(req.headers['sec-websocket-protocol']);
      socket.write(
        'HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: x\r\n\r\n',
      );
      socket.pipe(socket);
    });
    plain = await plainUpstream(routes);
    sandbox = await bed.sandbox('clients');
  }, LONG_MS);
  afterAll(async () => {
    api?.close();
    plain?.close();
    rmSync(repo.folder, { recursive: true, force: true });
    await bed?.close();
  }, LONG_MS);

  const ok = async (line: string): Promise<string> => {
    const { status, stdout, stderr } = await sandbox.shell(line);
    expect(status, stderr).toEqual({ state: 'exited', exitCode: 0, signal: null });
    return stdout;
  };

  it(
    'curl: HTTP/1.1 and HTTP/2, TLS and plain, absolute-form and tunnel',
    async () => {
      const url = `https://api.test:${api.port}/echo?a=1&b=%2f`;
      const one = JSON.parse(await ok(`curl -sS --http1.1 -d hello '${url}'`)) as Record<string, unknown>;
      expect(one).toMatchObject({ method: 'POST', url: '/echo?a=1&b=%2f', body: 'hello', httpVersion: '1.1' });
      expect(one['headers']).not.toHaveProperty('proxy-connection');
      const two = JSON.parse(await ok(`curl -sS --http2 -d hello '${url}'`)) as unknown;
      expect(two).toMatchObject({ method: 'POST', body: 'hello', httpVersion: '2.0' });
      const clear = JSON.parse(await ok(`curl -sS -T - http://api.test:${plain.port}/echo <<< streamed`)) as unknown;
      expect(clear).toMatchObject({ method: 'PUT', body: 'streamed\n', headers: { 'transfer-encoding': 'chunked' } });
      const tunnelled = JSON.parse(await ok(`curl -sS -p http://API.test.:${plain.port}/echo`)) as unknown;
      expect(tunnelled).toMatchObject({ method: 'GET', headers: { host: `api.test:${plain.port}` } });
    },
    LONG_MS,
  );

  it(
    'answers without a body, with trailers, with hints, with a name twice',
    async () => {
      const url = `https://api.test:${api.port}`;
      for (const version of ['--http1.1', '--http2']) {
        const head = await ok(`curl -sS -I ${version} ${url}/x`);
        expect(head).toMatch(/content-length: 4/i);
        expect(head).toMatch(/x-length: kept/i);
        expect(await ok(`curl -sS ${version} -w '%{http_code} %{size_download}' ${url}/204`)).toBe('204 0');
        expect(await ok(`curl -sS ${version} -w '%{http_code} %{size_download}' ${url}/304`)).toBe('304 0');
        const cookies = await ok(`curl -sS ${version} -D - -o /dev/null ${url}/duplicates`);
        expect(cookies.match(/set-cookie: [ab]=[12]/gi)).toHaveLength(2);
        expect(await ok(`curl -sS ${version} -D - ${url}/early`)).toMatch(/103[\s\S]*preload[\s\S]*200[\s\S]*late/);
        expect(await ok(`curl -sS ${version} -D - ${url}/trailers`)).toMatch(/200[\s\S]*body[\s\S]*x-checksum: abc/);
      }
    },
    LONG_MS,
  );

  it(
    'large bodies arrive whole, both ways',
    async () => {
      const url = `https://api.test:${api.port}`;
      for (const version of ['--http1.1', '--http2']) {
        expect(await ok(`curl -sS ${version} ${url}/big | sha256sum`)).toContain(sha256(BIG));
        const sent = await ok(
          `head -c 3000000 /dev/urandom > f; sha256sum < f; curl -sS ${version} -T f ${url}/upload`,
        );
        const [made, seen] = sent.split(/\s+-\n/);
        expect(seen).toBe(made);
        const chunked = await ok(`sha256sum < f; curl -sS ${version} -T - ${url}/upload < f`);
        expect(chunked.split(/\s+-\n/)[1]).toBe(made);
        const asked = await ok(`curl -sS ${version} -v -H 'Expect: 100-continue' --data-binary @f ${url}/upload 2>&1`);
        expect(asked).toMatch(/HTTP\/[12](\.1)? 100/);
        expect(asked).toContain(made);
      }
    },
    LONG_MS,
  );

  it(
    'a stream of events is not held back',
    async () => {
      for (const version of ['--http1.1', '--http2']) {
        wentOn = new Promise((resolve) => (goOn = resolve));
        const running = sandbox.shell(
          `curl -sSN ${version} https://api.test:${api.port}/sse | while IFS= read -r line; do echo "$line"; done > /workspace/events`,
        );
        const seen = (): Promise<string> => sandbox.shell('cat /workspace/events').then(({ stdout }) => stdout);
        await expect.poll(seen, { timeout: 60_000 }).toBe('data: first\n\n');
        goOn?.();
        await running;
        expect(await seen()).toBe('data: first\n\ndata: second\n\n');
      }
    },
    LONG_MS,
  );

  it(
    'git, which here speaks GnuTLS, clones',
    async () => {
      const log = await ok(
        `rm -rf r; git clone -q https://api.test:${api.port}/repo.git r && git -C r log --format=%s`,
      );
      expect(log.trim()).toBe('first commit of the test');
    },
    LONG_MS,
  );

  it(
    'python and openssl trust the certificates',
    async () => {
      const script = `import urllib.request; print(urllib.request.urlopen('https://api.test:${api.port}/x').read().decode())`;
      expect((await ok(`/usr/bin/python3 -c "${script}"`)).trim()).toBe('body');
      const verify = '-x509_strict -verify_return_error -verify_hostname api.test -CAfile /workspace/trust.pem';
      const said = await ok(
        `echo | openssl s_client -proxy 127.0.0.1:3128 -connect api.test:${api.port} -servername api.test ${verify}`,
      );
      expect(said).toContain('Verify return code: 0 (ok)');
    },
    LONG_MS,
  );

  it(
    'node: a WebSocket, and a stream of HTTP/2 both ways with trailers as gRPC has it',
    async () => {
      await sandbox.shell(`cat > tunnel.mjs <<'END'
import http from 'node:http';
import tls from 'node:tls';
export const open = (port, protocols) => new Promise((resolve, reject) => {
  const request = http.request({ host: '127.0.0.1', port: 3128, method: 'CONNECT', path: 'api.test:' + port });
  request.on('error', reject).on('connect', (answer, socket) => {
    const secured = tls.connect({ socket, servername: 'api.test', ALPNProtocols: protocols }, () => resolve(secured));
    secured.on('error', reject);
  });
  request.end();
});
END`);
      const socket = await ok(`cat > ws.mjs <<'END'
import { open } from './tunnel.mjs';
const socket = await open(${api.port}, ['http/1.1']);
socket.write('GET /ws HTTP/1.1\\r\\nHost: api.test:${api.port}\\r\\nConnection: Upgrade\\r\\nUpgrade: websocket\\r\\nSec-WebSocket-Key: x\\r\\nSec-WebSocket-Version: 13\\r\\nSec-WebSocket-Protocol: chat\\r\\n\\r\\n');
let all = '';
socket.on('data', (data) => {
  all += data;
  if (all.endsWith('\\r\\n\\r\\n')) socket.write('ping');
  if (all.endsWith('ping')) { console.log(all.split('\\r\\n')[0], all.endsWith('ping')); socket.end(); }
});
END
node ws.mjs`);
      expect(socket.trim()).toBe('HTTP/1.1 101 Switching Protocols true');
      expect(received).toBe('chat');

      const grpc = http2.createSecureServer(bed.authority.issue('api.test'));
      grpc.on('stream', (stream: ServerHttp2Stream, headers) => {
        stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
        stream.on('wantTrailers', () =>
          stream.sendTrailers({ 'grpc-status': '0', 'grpc-message': String(headers['te']) }),
        );
        stream.pipe(stream);
      });
      await new Promise<void>((resolve) => grpc.listen(0, '127.0.0.1', resolve));
      const { port } = grpc.address() as { port: number };
      const streamed = await ok(`cat > grpc.mjs <<'END'
import http2 from 'node:http2';
import { open } from './tunnel.mjs';
const socket = await open(${port}, ['h2']);
const session = http2.connect('https://api.test:${port}', { createConnection: () => socket });
const stream = session.request({ ':method': 'POST', ':path': '/s/M', te: 'trailers' });
stream.setEncoding('utf8');
stream.write('one');
// The second goes only once the first is back: nothing may be gathered on the way.
stream.on('data', (data) => { console.log(data); if (data === 'one') stream.end('two'); });
stream.on('trailers', (trailers) => console.log(trailers['grpc-status'], trailers['grpc-message']));
stream.on('close', () => session.close());
END
node grpc.mjs`);
      grpc.close();
      expect(streamed).toBe('one\ntwo\n0 trailers\n');
    },
    LONG_MS,
  );

  it(
    'who accepts only its own certificate gets it, and only under the right name',
    async () => {
      const own = await secureUpstream(bed.authority.issue('pinned.test'), routes);
      try {
        await sandbox.shell(`cat > pin.pem <<'END'\n${bed.authority.certificate}END`);
        const at = `https://pinned.test:${own.port}`;
        expect(await ok(`curl -sS --cacert pin.pem ${at}/x`)).toBe('body');
        // The broker's own certificate is not what came.
        expect((await sandbox.shell(`curl -sS ${at}/x`)).status).toMatchObject({ exitCode: 60 });
        const fronted = await sandbox.shell(
          `echo | openssl s_client -proxy 127.0.0.1:3128 -connect pinned.test:${own.port} -servername other.test -CAfile pin.pem`,
        );
        expect(fronted.stdout).not.toContain('BEGIN CERTIFICATE');
        const tunnels = bed.log().filter(({ type, target }) => type === 'record' && target?.host === 'pinned.test');
        expect(tunnels[0]).toMatchObject({ status: null });
        expect(tunnels[0]?.bytesIn).toBeGreaterThan(500);
        expect(tunnels.at(-1)).toMatchObject({ error: 'misdirected', bytesIn: 0 });
      } finally {
        own.close();
      }
    },
    LONG_MS,
  );

  it('a whole URL of one request is one line of the record, with its bytes', () => {
    const entries = bed.log();
    expect(entries.filter(({ type }) => ['uncaught', 'unhandled'].includes(type))).toEqual([]);
    const big = entries.filter((entry) => entry.type === 'record' && entry.path === '/big');
    expect(big).toHaveLength(2);
    for (const entry of big)
      expect(entry).toMatchObject({ status: 200, bytesIn: BIG.length, bytesOut: 0, method: 'GET' });
  });
});
