import { execFileSync, spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import https from 'node:https';
import os from 'node:os';
import path from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { npmRegistry, pipIndex } from '../doubles/package-registries.ts';
import { EgressBed, secureUpstream, type EgressSandbox, type Upstream } from '../support/egress-bed.ts';
import type { Finished } from '../support/sandbox-commands.ts';
import { SANDBOX_MODES } from '../support/sandbox-modes.ts';
import type { Planted, PolicyBed } from './support.ts';
import { policyBed } from './support.ts';

const CANARY = `canary-${randomBytes(14).toString('hex')}`;
const mode = SANDBOX_MODES[0]!;

describe('tools in a sandbox that have placeholders only', () => {
  let policies: PolicyBed;
  let bed: EgressBed;
  let sandbox: EgressSandbox;
  let folder: string;
  let token: Planted;
  /** Authorization headers as upstreams saw them. */
  const seen: string[] = [];
  const closers: (() => void)[] = [];
  const ports = { git: 0, npm: 0, pip: 0, api: 0 };

  const isAuthorised = (req: IncomingMessage, res: ServerResponse): boolean => {
    const header = req.headers.authorization ?? '';
    seen.push(header);
    const given = header.startsWith('Basic ')
      ? Buffer.from(header.slice(6), 'base64').toString().split(':')[1]
      : header.slice(7);
    if (given === CANARY) return true;
    res.writeHead(401, { 'www-authenticate': 'Basic realm="test"' }).end('who are you?');
    return false;
  };

  beforeAll(async () => {
    policies = await policyBed();
    folder = mkdtempSync(path.join(os.tmpdir(), 'longhaul-tools-'));
    const secretsFile = path.join(folder, 'values.json');
    bed = await EgressBed.start({
      mode,
      rules: { hosts: {}, addresses: [] },
      policies: { databaseUrl: policies.databaseUrl, secretsFile, holdMs: 0 },
    });
    const hosts = ['git.test', 'packages.test', 'pip.test', 'api.test'];
    for (const host of hosts) bed.name(host, '127.0.0.1');
    const start = async (
      host: string,
      answer: (req: IncomingMessage, res: ServerResponse) => void,
    ): Promise<Upstream> => {
      const upstream = await secureUpstream(bed.authority.issue(host), answer);
      closers.push(() => upstream.close());
      return upstream;
    };
    const repository = makeRepository(folder);
    ports.git = (
      await start('git.test', (req, res) => isAuthorised(req, res) && gitBackend(repository, req, res))
    ).port;
    ports.npm = (
      await start(
        'packages.test',
        (req, res) => isAuthorised(req, res) && npmRegistry(`https://packages.test:${ports.npm}`, req, res),
      )
    ).port;
    ports.pip = (await start('pip.test', (req, res) => isAuthorised(req, res) && pipIndex(req, res))).port;
    const api = await startApi(bed.authority.issue('api.test'), (req, res) => isAuthorised(req, res));
    closers.push(api.close);
    ports.api = api.port;

    const session = await policies.session({
      type: 'limited',
      allowed_hosts: ['git.test', 'pip.test', 'api.test'],
      allow_package_managers: true,
      private_addresses: hosts,
    });
    token = await policies.credential(session, {
      hosts,
      value: CANARY,
      locations: ['header', 'basic', 'query', 'body'],
    });
    writeFileSync(secretsFile, JSON.stringify({ [token.id]: CANARY }));
    sandbox = await bed.sandbox('tools', session);
  }, 180_000);
  afterAll(async () => {
    for (const close of closers) close();
    await bed?.close();
    await policies?.close();
    rmSync(folder, { recursive: true, force: true });
  }, 180_000);

  /** Runs with the placeholder in $TOKEN; the value is in nothing the sandbox sees. */
  const run = async (line: string): Promise<Finished> => {
    const done = await sandbox.shell(`set -e\n${line}`, { TOKEN: token.placeholder, CI: '1' });
    expect(`${done.stdout}${done.stderr}`).not.toContain(CANARY);
    expect(done.status, done.stderr).toMatchObject({ state: 'exited', exitCode: 0 });
    return done;
  };

  it('git clones and pushes over https with Basic', async () => {
    const done = await run(`
      git -c http.version=HTTP/1.1 clone -q https://bot:$TOKEN@git.test:${ports.git}/repo.git
      cd repo
      git config user.email a@b.c; git config user.name agent
      echo more >> README; head -c 200000 /dev/urandom > large
      git add -A; git commit -qm 'second'
      git push -q origin HEAD:main
      git ls-remote origin main; git log -1 --format=%H; grep -c "$TOKEN" .git/config`);
    const [remote, local, config] = done.stdout.trim().split('\n');
    expect(remote).toContain(local);
    expect(config).toBe('1');
    expect(seen.some((header) => header.startsWith('Basic '))).toBe(true);
  }, 120_000);

  it('curl -u', async () => {
    const done = await run(`curl -sS -u bot:$TOKEN https://api.test:${ports.api}/echo`);
    const { headers } = JSON.parse(done.stdout) as { headers: { authorization: string } };
    // What came back is the placeholder, inside Basic too.
    expect(Buffer.from(headers.authorization.slice(6), 'base64').toString()).toBe(`bot:${token.placeholder}`);
    expect(Buffer.from(seen.at(-1)!.slice(6), 'base64').toString()).toBe(`bot:${CANARY}`);
  }, 120_000);

  it('npm installs from a registry', async () => {
    const done = await run(`
      mkdir -p npm && cd npm
      printf '//packages.test:${ports.npm}/:_authToken=%s\\nregistry=https://packages.test:${ports.npm}/\\ncafile=/workspace/trust.pem\\n' "$TOKEN" > .npmrc
      echo '{"name":"x","version":"1.0.0"}' > package.json
      npm install --no-audit --no-fund --no-update-notifier @scope/hello 2>&1
      node -e "console.log(require('@scope/hello'))"`);
    expect(done.stdout).toContain('hello from npm');
    expect(seen.at(-1)).toBe(`Bearer ${CANARY}`);
  }, 120_000);

  it('pip installs from an index', async () => {
    const done = await run(`
      python3 -m pip install -q --disable-pip-version-check --no-cache-dir --target pip --cert /workspace/trust.pem --index-url https://bot:$TOKEN@pip.test:${ports.pip}/simple hello_pip 2>&1
      PYTHONPATH=pip python3 -c 'import hello_pip; print(hello_pip.WORDS)'`);
    expect(done.stdout).toContain('hello from pip');
  }, 120_000);

  it('requests and urllib of Python', async () => {
    const done = await run(`
      cat > a.py <<'END'
import json, os, urllib.request
from pip._vendor import requests
url = 'https://api.test:${ports.api}'
token = os.environ['TOKEN']
session = requests.Session()
session.verify = os.environ['REQUESTS_CA_BUNDLE']
a = session.post(url + '/echo', params={'key': token}, json={'t': token, 'n': 1}, headers={'authorization': 'Bearer ' + token})
assert a.status_code == 200, a.text
print(a.text)
b = session.post(url + '/echo', data={'t': token}, auth=('bot', token))
assert json.loads(b.text)['body'] == 't=' + token, b.text
c = urllib.request.urlopen(urllib.request.Request(url + '/zipped', headers={'authorization': 'Bearer ' + token, 'accept-encoding': 'gzip'}))
print(c.read().decode())
END
      python3 a.py`);
    const [echoed, zipped] = done.stdout.trim().split('\n');
    expect(JSON.parse(echoed!)).toMatchObject({
      url: `/echo?key=${token.placeholder}`,
      body: `{"t": "${token.placeholder}", "n": 1}`,
    });
    expect(zipped).toBe(`you sent Bearer ${token.placeholder}`);
  }, 120_000);

  it('a WebSocket', async () => {
    const done = await run(`
      cat > ws.mjs <<'END'
import net from 'node:net';
import tls from 'node:tls';
const socket = net.connect(3128, '127.0.0.1');
socket.write('CONNECT api.test:${ports.api} HTTP/1.1\\r\\nhost: api.test:${ports.api}\\r\\n\\r\\n');
socket.once('data', () => {
  const secure = tls.connect({ socket, servername: 'api.test' }, () => {
    secure.write('GET /socket HTTP/1.1\\r\\nhost: api.test:${ports.api}\\r\\nupgrade: websocket\\r\\nconnection: Upgrade\\r\\nsec-websocket-version: 13\\r\\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\\r\\nauthorization: Bearer ' + process.env.TOKEN + '\\r\\n\\r\\n');
  });
  let text = '';
  secure.on('data', (data) => {
    text += data.toString('latin1');
    if (text.includes('bye')) { console.log(text); process.exit(0); }
  });
  secure.on('close', () => { console.log('closed', text); process.exit(1); });
});
END
      node ws.mjs`);
    expect(done.stdout).toContain('101');
    expect(done.stdout).toContain('hello socket');
    expect(seen.at(-1)).toBe(`Bearer ${CANARY}`);
  }, 120_000);

  it('hints, trailers, reasons and refused upgrades bring nothing back either', async () => {
    const done = await run(`
      curl -sS --http1.1 -D - -H "Authorization: Bearer $TOKEN" https://api.test:${ports.api}/around
      curl -sS --http1.1 -H 'Connection: Upgrade' -H 'Upgrade: websocket' -H "Authorization: Bearer $TOKEN" https://api.test:${ports.api}/refuse`);
    expect(done.stdout).toContain(`Link: </${token.placeholder}>; rel=preload`);
    expect(done.stdout).toContain(`x-echo: ${token.placeholder}`);
    expect(done.stdout).toContain(`refused Bearer ${token.placeholder}`);
    expect(seen.at(-1)).toBe(`Bearer ${CANARY}`);
  }, 120_000);

  it('an event stream arrives as it is sent, without the value', async () => {
    const done = await run(`
      cat > sse.mjs <<'END'
import https from 'node:https';
import net from 'node:net';
import tls from 'node:tls';
const url = 'https://api.test:${ports.api}';
const socket = net.connect(3128, '127.0.0.1');
socket.write('CONNECT api.test:${ports.api} HTTP/1.1\\r\\nhost: api.test:${ports.api}\\r\\n\\r\\n');
socket.once('data', () => {
  const secure = tls.connect({ socket, servername: 'api.test' });
  const headers = { authorization: 'Bearer ' + process.env.TOKEN };
  const req = https.request(url + '/events', { createConnection: () => secure, headers }, (res) => {
    res.on('data', (data) => {
      const text = data.toString();
      process.stdout.write(text);
      // The next one is sent only when this one has come: a proxy that waits for more would wait forever.
      const next = /id: (\\d)/.exec(text)?.[1];
      if (next === '3') process.exit(0);
      if (next) fetchNext(next);
    });
  });
  req.end();
});
function fetchNext(id) {
  const go = net.connect(3128, '127.0.0.1');
  go.write('CONNECT api.test:${ports.api} HTTP/1.1\\r\\nhost: api.test:${ports.api}\\r\\n\\r\\n');
  go.once('data', () => {
    const secure = tls.connect({ socket: go, servername: 'api.test' });
    https.request(url + '/next', { createConnection: () => secure, headers: { authorization: 'Bearer ' + process.env.TOKEN } }).end();
  });
}
END
      node sse.mjs`);
    const events = [1, 2, 3].map((id) => `id: ${id}\ndata: Bearer ${token.placeholder}\n\n`);
    expect(done.stdout).toBe(events.join(''));
  }, 120_000);
});

function makeRepository(folder: string): string {
  const bare = path.join(folder, 'repo.git');
  const git = (...args: string[]): Buffer =>
    execFileSync('git', args, {
      cwd: folder,
      env: {
        PATH: process.env['PATH'] ?? '',
        HOME: folder,
        GIT_AUTHOR_NAME: 'a',
        GIT_AUTHOR_EMAIL: 'a@b.c',
        GIT_COMMITTER_NAME: 'a',
        GIT_COMMITTER_EMAIL: 'a@b.c',
      },
    });
  git('init', '-q', '--bare', '-b', 'main', bare);
  git('-C', bare, 'config', 'http.receivepack', 'true');
  git('init', '-q', '-b', 'main', 'first');
  writeFileSync(path.join(folder, 'first', 'README'), 'hello\n');
  git('-C', 'first', 'add', '-A');
  git('-C', 'first', 'commit', '-qm', 'first');
  git('-C', 'first', 'push', '-q', bare, 'main');
  return folder;
}

/** Git's own server over CGI. */
function gitBackend(root: string, req: IncomingMessage, res: ServerResponse): void {
  const [pathname = '', query = ''] = (req.url ?? '').split('?');
  const backend = spawn('git', ['http-backend'], {
    env: {
      PATH: process.env['PATH'] ?? '',
      GIT_PROJECT_ROOT: root,
      GIT_HTTP_EXPORT_ALL: '1',
      PATH_INFO: pathname,
      QUERY_STRING: query,
      REQUEST_METHOD: req.method ?? 'GET',
      CONTENT_TYPE: req.headers['content-type'] ?? '',
      HTTP_CONTENT_ENCODING: req.headers['content-encoding'] ?? '',
      HTTP_GIT_PROTOCOL: String(req.headers['git-protocol'] ?? ''),
      REMOTE_USER: 'bot',
      REMOTE_ADDR: '127.0.0.1',
    },
  });
  req.pipe(backend.stdin);
  let head = Buffer.alloc(0);
  let isHead = true;
  backend.stdout.on('data', (chunk: Buffer) => {
    if (!isHead) return void res.write(chunk);
    head = Buffer.concat([head, chunk]);
    const end = head.indexOf('\r\n\r\n');
    if (end < 0) return;
    isHead = false;
    let status = 200;
    for (const line of head.subarray(0, end).toString().split('\r\n')) {
      const [name = '', value = ''] = line.split(': ');
      if (name === 'Status') status = Number(value.slice(0, 3));
      else res.setHeader(name, value);
    }
    res.writeHead(status);
    res.write(head.subarray(end + 4));
  });
  backend.stdout.on('end', () => res.end());
}

const frame = (text: string): Buffer => Buffer.concat([Buffer.from([0x81, text.length]), Buffer.from(text)]);

/** Echo, a compressed answer, a WebSocket and an event stream that waits for its reader. */
async function startApi(
  identity: { key: string; cert: string },
  isAuthorised: (req: IncomingMessage, res: ServerResponse) => boolean,
): Promise<{ port: number; close: () => void }> {
  let send: (() => void) | undefined;
  const server = https.createServer(identity, (req, res) => {
    const chunks: Buffer[] = [];
    req.on('data', (chunk: Buffer) => chunks.push(chunk));
    req.on('end', () => {
      if (!isAuthorised(req, res)) return;
      const { url = '', headers, method } = req;
      const bearer = headers.authorization ?? '';
      if (url === '/zipped') {
        const zipped = gzipSync(`you sent ${bearer}`);
        return void res.writeHead(200, { 'content-encoding': 'gzip', 'content-length': zipped.length }).end(zipped);
      }
      if (url === '/around') {
        res.writeEarlyHints({ link: `</${CANARY}>; rel=preload` });
        res.writeHead(200, `for ${CANARY}`, { trailer: 'x-echo' });
        res.write('around');
        res.addTrailers({ 'x-echo': CANARY });
        return res.end();
      }
      if (url === '/next') {
        send?.();
        return void res.writeHead(204).end();
      }
      if (url === '/events') {
        res.writeHead(200, { 'content-type': 'text/event-stream' });
        let id = 0;
        send = () => {
          id += 1;
          res.write(`id: ${id}\ndata: ${bearer}\n\n`);
        };
        return send();
      }
      const body = Buffer.concat(chunks).toString();
      res.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ method, url, headers, body }));
    });
  });
  server.on('upgrade', (req, socket) => {
    isAuthorised(req, {} as ServerResponse);
    if (req.url === '/refuse') {
      const zipped = gzipSync(`refused ${req.headers.authorization ?? ''}`);
      socket.write(`HTTP/1.1 403 ${CANARY}\r\ncontent-encoding: gzip\r\ncontent-length: ${zipped.length}\r\n\r\n`);
      return void socket.end(zipped);
    }
    const accept = createHash('sha1')
      .update(`${req.headers['sec-websocket-key'] ?? ''}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`)
      .digest('base64');
    socket.write(
      `HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: ${accept}\r\n\r\n`,
    );
    socket.write(frame('hello socket'));
    socket.write(frame('bye'));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  return {
    port,
    close: () => {
      server.close();
      server.closeAllConnections();
    },
  };
}
