import { once } from 'node:events';
import type net from 'node:net';
import { TLSSocket } from 'node:tls';
import type { Logger } from '../../telemetry/logger.ts';
import type { EgressLimits } from '../config.ts';
import type { EgressTarget, Passthrough } from '../decision.ts';
import { canonicalHost, parseAuthority } from '../hosts.ts';
import type { Flow, SandboxEgress } from '../sandbox.ts';
import { readHello } from '../tls/hello.ts';
import type { Leaves } from '../tls/leaves.ts';
import { EgressFailure, rawAnswer, toFailure } from './failure.ts';
import type { Front } from './front.ts';
import { watchHalfClosed } from './half-closed.ts';
import { finished, pump } from './pump.ts';
import { printable, type Tunnel } from './request-head.ts';

const OPENED = 'HTTP/1.1 200 Connection Established\r\n\r\n';
const TLS_HANDSHAKE = 0x16;

export interface TunnelOptions {
  leaves: Leaves;
  limits: EgressLimits;
  logger: Logger;
  front: Front;
}

/** CONNECT: asks the policy, then reads what is in the tunnel, or passes it on unread where the policy says so. */
export async function openTunnel(
  asked: string,
  socket: net.Socket,
  sandbox: SandboxEgress,
  options: TunnelOptions,
): Promise<void> {
  let target: EgressTarget | null = null;
  const gone = new AbortController();
  const onClose = (): void => gone.abort(new Error('the sandbox hung up'));
  socket.on('error', () => undefined).once('close', onClose);
  try {
    const where = parseAuthority(asked, null);
    if (where === null) {
      const message = `"${printable(asked)}" is not one clear host and port`;
      throw new EgressFailure(400, 'ambiguous_host', message);
    }
    // What is in the tunnel shows only once it is open.
    target = { ...where, isTls: where.port !== 80 };
    sandbox.checkRoom();
    const decision = await sandbox.engine.connect(target, gone.signal);
    if (decision.action === 'deny') {
      socket.end(rawAnswer(decision));
      return;
    }
    if (gone.signal.aborted) return;
    if (decision.action === 'passthrough' && !sandbox.upstream.makeRoom()) {
      // Once the tunnel is open nothing can be said in it any more.
      const failure = sandbox.upstream.full();
      socket.end(rawAnswer(failure));
      decision.record({ status: failure.status, bytesOut: 0, bytesIn: 0, durationMs: 0, error: failure.code });
      return;
    }
    socket.write(OPENED);
    if (decision.action === 'passthrough') await passThrough(socket, target, sandbox, decision, options);
    else await terminate(socket, target, sandbox, options);
  } catch (error) {
    const failure = toFailure(error);
    if (socket.bytesWritten === 0) socket.end(rawAnswer(failure));
    socket.destroySoon();
    if (gone.signal.aborted) return;
    const { status, code } = failure;
    sandbox.engine.refused({ target, asked: printable(asked), method: 'CONNECT', path: null, status, code });
  } finally {
    socket.off('close', onClose);
  }
}

/** Speaks as the upstream, and finds the requests. */
async function terminate(
  socket: net.Socket,
  target: EgressTarget,
  sandbox: SandboxEgress,
  { leaves, limits, front }: TunnelOptions,
): Promise<void> {
  const deadline = setTimeout(() => socket.destroy(), limits.handshakeMs);
  try {
    const { data, serverName } = await greeting(socket);
    socket.unshift(data);
    const isTls = data[0] === TLS_HANDSHAKE;
    const tunnel: Tunnel = { host: target.host, port: target.port, isTls, strayName: stray(serverName, target.host) };
    if (!isTls) {
      front.serve(socket, sandbox, tunnel);
      return;
    }
    const named = serverName === null ? null : canonicalHost(serverName);
    // Who greets another name shall see why it gets nothing, and not a certificate error.
    const context = leaves.contextFor(named?.host ?? target.host);
    const secured = new TLSSocket(socket, {
      isServer: true,
      secureContext: context,
      ALPNProtocols: ['h2', 'http/1.1'],
    });
    secured.on('error', () => socket.destroy());
    await once(secured, 'secure');
    // What a TLS server does for its sockets; a session of HTTP/2 waits for it.
    Object.assign(secured, { secureConnecting: false });
    if (secured.alpnProtocol === 'h2') front.serveHttp2(secured, sandbox, tunnel);
    else front.serve(secured, sandbox, tunnel);
  } finally {
    clearTimeout(deadline);
  }
}

const stray = (serverName: string | null, host: string): string | null =>
  serverName === null || canonicalHost(serverName)?.host === host ? null : serverName;

/** The first bytes: of TLS the whole hello with the name it greets, of anything else what came. */
async function greeting(socket: net.Socket): Promise<{ data: Buffer; serverName: string | null }> {
  let data: Buffer = Buffer.alloc(0);
  for (;;) {
    const chunk = socket.read() as Buffer | null;
    if (chunk === null) {
      if (socket.readableEnded || socket.destroyed) throw new EgressFailure(400, 'empty_tunnel', 'nothing came');
      await Promise.race([once(socket, 'readable'), once(socket, 'end'), once(socket, 'close')]);
      continue;
    }
    data = data.length === 0 ? chunk : Buffer.concat([data, chunk]);
    if (data[0] !== TLS_HANDSHAKE) {
      if (/^[A-Z]/.test(data.toString('latin1', 0, 1))) return { data, serverName: null };
      throw new EgressFailure(400, 'unknown_protocol', 'only TLS and HTTP go through a tunnel');
    }
    const hello = readHello(data);
    if (hello.type === 'hello') return { data, serverName: hello.serverName };
    if (hello.type === 'malformed') throw new EgressFailure(400, 'unknown_protocol', 'the TLS hello cannot be read');
  }
}

/** Passes bytes on unread, once the name in the hello is known to be the target's. */
async function passThrough(
  socket: net.Socket,
  target: EgressTarget,
  sandbox: SandboxEgress,
  decision: Passthrough,
  { limits }: TunnelOptions,
): Promise<void> {
  const startedMs = performance.now();
  const deadline = setTimeout(() => socket.destroy(), limits.handshakeMs);
  let upstream: net.Socket | undefined;
  let bytesOut = 0;
  let bytesIn = 0;
  let error: string | undefined;
  let unwatch: (() => void) | undefined;
  const flow: Flow = {
    activeAtMs: performance.now(),
    isOpaque: true,
    cut: (code) => {
      error ??= code;
      socket.destroy();
      upstream?.destroy();
    },
  };
  const count = (limit: number, total: number): void => {
    flow.activeAtMs = performance.now();
    if (total > limit) throw new EgressFailure(413, 'tunnel_too_large', 'the tunnel has moved all it may move');
  };
  try {
    sandbox.begin(flow);
    const { data, serverName } = await greeting(socket);
    clearTimeout(deadline);
    checkName(serverName, target);
    upstream = await sandbox.upstream.dial({ ...target, isTls: true }, null);
    const there = upstream;
    socket.unshift(data);
    await Promise.all([
      pump(socket, there, (chunk) => {
        count(decision.limits.requestBodyBytes, (bytesOut += chunk.length));
        spend(sandbox, chunk);
      }).then(() => {
        unwatch = watchHalfClosed(flow, limits.handshakeMs);
        return finished(there);
      }),
      pump(there, socket, (chunk) => {
        count(decision.limits.responseBodyBytes, (bytesIn += chunk.length));
        spend(sandbox, chunk);
      }).then(() => finished(socket)),
    ]);
  } catch (caught) {
    error ??= toFailure(caught).code;
  } finally {
    clearTimeout(deadline);
    unwatch?.();
    socket.destroy();
    upstream?.destroy();
    sandbox.end(flow);
    const durationMs = performance.now() - startedMs;
    decision.record({ status: null, bytesOut, bytesIn, durationMs, ...(error === undefined ? {} : { error }) });
  }
}

function spend(sandbox: SandboxEgress, chunk: Buffer): void {
  if (sandbox.countBytes(chunk.length)) return;
  throw new EgressFailure(429, 'bytes_exhausted', 'this sandbox has moved all the bytes it may move');
}

/** Only TLS, and only for the target: unread bytes must not be what reaches another host behind the same address. */
function checkName(serverName: string | null, target: EgressTarget): void {
  const isAddress = canonicalHost(target.host)?.kind !== 'name';
  if (serverName === null ? isAddress : canonicalHost(serverName)?.host === target.host) return;
  throw new EgressFailure(421, 'misdirected', `the TLS hello does not name ${target.host}`);
}
