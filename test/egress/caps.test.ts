import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { connectInside } from '../../egress/namespace/porter.ts';
import {
  EgressBed,
  plainUpstream,
  secureUpstream,
  type EgressSandbox,
  type Rules,
  type Upstream,
} from '../support/egress-bed.ts';
import { LONG_MS } from '../support/sandbox-commands.ts';
import { SANDBOX_MODES } from '../support/sandbox-modes.ts';

const [MODE = { name: '', uid: null }] = SANDBOX_MODES;
const SOCKETS = 4;
const AT_ONCE = 8;
const HOSTS = ['h1.test', 'h2.test', 'h3.test', 'h4.test', 'h5.test', 'h6.test', 'secure.test', 'mute.test'];
const RULES: Rules = {
  hosts: {
    ...Object.fromEntries(HOSTS.map((host) => [host, {}])),
    'pinned.test': { passthrough: true },
    'asked.test': { holdMs: 3_600_000 },
  },
  addresses: ['127.0.0.1'],
};

/** Reads until what came looks like this. */
const until = async (socket: Socket, pattern: RegExp): Promise<string> => {
  let text = '';
  const onData = (chunk: Buffer): void => void (text += chunk.toString('latin1'));
  socket.on('data', onData);
  while (!pattern.test(text)) {
    if (socket.destroyed || socket.readableEnded) throw new Error(`the proxy hung up after: ${text}`);
    await Promise.race(['data', 'end', 'close'].map((event) => once(socket, event)));
  }
  socket.off('data', onData);
  return text;
};

/** Caps of one sandbox on what is open at a time. */
describe('caps of one sandbox', () => {
  let bed: EgressBed;
  let sandbox: EgressSandbox;
  let plain: Upstream;
  let secure: Upstream;
  let mute: Server;
  let open: Socket[] = [];
  /** Requests whose answer waits to be asked for. */
  let held: ServerResponse[] = [];

  const answer = (req: IncomingMessage, res: ServerResponse): void => {
    if (req.url !== '/hold') {
      res.end('reached');
      return;
    }
    held.push(res);
    res.once('close', () => (held = held.filter((each) => each !== res)));
  };

  beforeAll(async () => {
    bed = await EgressBed.start({
      mode: MODE,
      rules: RULES,
      env: {
        LONGHAUL_EGRESS_SOCKETS: String(SOCKETS),
        LONGHAUL_EGRESS_CONCURRENT: String(AT_ONCE),
        LONGHAUL_EGRESS_CONNECT_MS: '2000',
        LONGHAUL_EGRESS_HANDSHAKE_MS: '2000',
      },
    });
    for (const host of [...HOSTS, 'pinned.test', 'asked.test']) bed.name(host, '127.0.0.1');
    plain = await plainUpstream(answer);
    plain.server.on('upgrade', (_req: IncomingMessage, socket: Socket) => {
      socket.on('error', () => undefined);
      socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n');
    });
    secure = await secureUpstream(bed.authority.issue('secure.test'), answer);
    // Takes connections and says nothing.
    mute = createServer((socket) => socket.on('error', () => undefined));
    await once(mute.listen(0, '127.0.0.1'), 'listening');
    sandbox = await bed.sandbox('caps');
  }, LONG_MS);
  afterEach(async () => {
    for (const socket of open) socket.destroy();
    open = [];
    await vi.waitFor(async () => expect(await gauge('requests')).toBe(0), { timeout: LONG_MS });
  }, LONG_MS);
  afterAll(async () => {
    plain?.close();
    secure?.close();
    mute?.close();
    await bed?.close();
  }, LONG_MS);

  const gauge = async (limit: string): Promise<number | undefined> =>
    (await bed.metrics()).get(`longhaul_egress_open{limit="${limit}"}`);
  const reached = async (limit: string): Promise<number> =>
    (await bed.metrics()).get(`longhaul_egress_limits_reached_total{limit="${limit}"}`) ?? 0;

  /** The engine is told at the end of a request, which may be after its last byte. */
  const logged = (entry: object): Promise<void> =>
    vi.waitFor(() => expect(bed.log()).toContainEqual(expect.objectContaining(entry)), { timeout: LONG_MS });

  const connected = async (): Promise<Socket> => {
    const socket = await connectInside(sandbox.point, 3128);
    socket.on('error', () => undefined);
    open.push(socket);
    return socket;
  };
  const say = (socket: Socket, host: string, path: string, more = ''): boolean =>
    socket.write(`GET http://${host}:${plain.port}${path} HTTP/1.1\r\nHost: ${host}:${plain.port}\r\n${more}\r\n`);
  const asking = async (host: string, path: string, more = ''): Promise<Socket> => {
    const socket = await connected();
    say(socket, host, path, more);
    return socket;
  };
  const heldAre = (count: number): Promise<void> =>
    vi.waitFor(() => expect(held).toHaveLength(count), { timeout: LONG_MS });
  /** Uses each connection there may be, over as many origins. */
  const holdAll = async (): Promise<Socket[]> => {
    const clients = await Promise.all(HOSTS.slice(0, SOCKETS).map((host) => asking(host, '/hold')));
    await heldAre(SOCKETS);
    return clients;
  };

  it(
    'connections to upstreams of all origins together: a new one is refused, open ones go on, kept ones make room',
    async () => {
      const before = await reached('sockets');
      const [first] = await holdAll();
      const refused = await until(await asking('h5.test', '/x'), /\}\n$/);
      expect(refused).toMatch(/^HTTP\/1.1 429 /);
      expect(refused).toMatch(/^x-longhaul-egress: sockets_exhausted\r$/m);
      expect(refused).toMatch(/^retry-after: 1\r$/m);
      expect(refused).toContain('LONGHAUL_EGRESS_SOCKETS');
      await logged({ type: 'record', error: 'sockets_exhausted', status: 429, path: '/x' });
      expect(await until(await refusedTunnel(), /\}\n$/)).toMatch(/^HTTP\/1.1 429 [\s\S]*sockets_exhausted/);
      expect(await reached('sockets')).toBe(before + 2);
      expect(await gauge('sockets')).toBe(SOCKETS);

      for (const each of held) each.end('went on');
      expect(await until(first!, /went on/)).toMatch(/^HTTP\/1.1 200 /);
      say(first!, 'h1.test', '/x');
      expect(await until(first!, /reached/)).toMatch(/^HTTP\/1.1 200 /);
      await heldAre(0);
      expect(await until(await asking('h6.test', '/x'), /reached/)).toMatch(/^HTTP\/1.1 200 /);
      expect(await gauge('sockets')).toBeLessThanOrEqual(SOCKETS);
    },
    LONG_MS,
  );

  const refusedTunnel = async (): Promise<Socket> => {
    const socket = await connected();
    socket.write(`CONNECT pinned.test:${secure.port} HTTP/1.1\r\nHost: pinned.test:${secure.port}\r\n\r\n`);
    return socket;
  };

  it(
    'whatever becomes of a connection, its place is free again',
    async () => {
      for (let round = 0; round < 2; round += 1) {
        // Ended by the sandbox in the middle: requests, a WebSocket, a tunnel that is passed on, a session of HTTP/2.
        for (const each of await holdAll()) each.destroy();
        await heldAre(0);
        const upgrade = 'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n';
        const webSocket = await asking('h5.test', '/ws', upgrade);
        await until(webSocket, /^HTTP\/1.1 101 /);
        const inTunnels = ['--http2 https://secure.test', '--http1.1 https://secure.test', '-k https://pinned.test'];
        const commands = inTunnels.map((url) => `(curl -s ${url}:${secure.port}/hold & echo $! >> /tmp/pids; wait)`);
        const killed = sandbox.shell(`rm -f /tmp/pids; ${commands.join(' & ')} & wait`);
        await heldAre(inTunnels.length);
        webSocket.destroy();
        await sandbox.shell('kill -9 $(cat /tmp/pids)');
        await killed;
        await heldAre(0);
        await vi.waitFor(async () => expect(await gauge('requests')).toBe(0), { timeout: LONG_MS });
        // One that never comes about.
        const mutePort = (mute.address() as AddressInfo).port;
        const late = await sandbox.shell(`curl -s -w '%{http_code}' https://mute.test:${mutePort}/x`);
        expect(late.stdout).toMatch(/upstream_timeout[\s\S]*504$/);
        // And by the upstream.
        const clients = await holdAll();
        for (const each of held) each.socket?.destroy();
        for (const each of clients) await until(each, /upstream_failed/);
      }
      await holdAll();
      expect(await gauge('sockets')).toBe(SOCKETS);
      expect(await gauge('requests')).toBe(SOCKETS);
      const other = await bed.sandbox('caps-beside');
      expect((await other.shell(`curl -sS http://h1.test:${plain.port}/x`)).stdout).toBe('reached');
    },
    LONG_MS,
  );

  it(
    'requests and tunnels at a time: one more is refused until another ends',
    async () => {
      const before = await reached('requests');
      const waiting = await Promise.all(Array.from({ length: AT_ONCE }, () => asking('asked.test', '/x')));
      await vi.waitFor(async () => expect(await gauge('requests')).toBe(AT_ONCE), { timeout: LONG_MS });
      const refused = await until(await asking('h1.test', '/x'), /\}\n$/);
      expect(refused).toMatch(/^HTTP\/1.1 429 [\s\S]*requests_at_once[\s\S]*LONGHAUL_EGRESS_CONCURRENT/);
      const connect = await refusedTunnel();
      expect(await until(connect, /\}\n$/)).toMatch(/^HTTP\/1.1 429 [\s\S]*requests_at_once/);
      for (const method of ['GET', 'CONNECT']) {
        await logged({ type: 'refused', code: 'requests_at_once', status: 429, method });
      }
      expect(await reached('requests')).toBe(before + 2);
      waiting[0]?.destroy();
      await vi.waitFor(async () => expect(await gauge('requests')).toBe(AT_ONCE - 1), { timeout: LONG_MS });
      expect(await until(await asking('h1.test', '/x'), /reached/)).toMatch(/^HTTP\/1.1 200 /);
    },
    LONG_MS,
  );
});
