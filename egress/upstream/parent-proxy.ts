import { once } from 'node:events';
import type net from 'node:net';
import tls, { type SecureContext } from 'node:tls';
import type { ParentProxyConfig } from '../config.ts';
import type { EgressTarget } from '../decision.ts';
import { formatAuthority } from '../hosts.ts';
import { EgressFailure } from '../proxy/failure.ts';

const ANSWER_BYTES = 16 * 1024;

/**
 * Goes on through another egress proxy: a tunnel for TLS; for plain HTTP the connection as it is, on which requests are
 * asked for by their whole URL.
 */
export async function connectThrough(
  socket: net.Socket,
  proxy: ParentProxyConfig,
  target: EgressTarget,
  authorities: SecureContext,
  signal: AbortSignal,
): Promise<net.Socket> {
  let connection = socket;
  const onAbort = (): void => void connection.destroy(signal.reason as Error);
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    if (proxy.isTls) {
      const secured = tls.connect({ socket, host: proxy.host, servername: proxy.host, secureContext: authorities });
      connection = secured;
      await once(secured, 'secureConnect');
    }
    if (!target.isTls) return connection;
    const authority = formatAuthority(target, 0);
    const identity = proxy.authorization === null ? '' : `Proxy-Authorization: ${proxy.authorization}\r\n`;
    connection.write(`CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n${identity}\r\n`);
    const status = await answerOf(connection);
    if (status === 200) return connection;
    throw new EgressFailure(502, 'proxy_refused', `the proxy behind the broker refused ${authority} (${status})`);
  } catch (error) {
    connection.destroy();
    throw error;
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}

/** Reads exactly the head of the answer: what follows is the target's. */
async function answerOf(connection: net.Socket): Promise<number> {
  let head = '';
  while (!head.endsWith('\r\n\r\n')) {
    const byte = connection.read(1) as Buffer | null;
    if (byte !== null) {
      head += byte.toString('latin1');
      if (head.length > ANSWER_BYTES)
        throw new EgressFailure(502, 'proxy_refused', 'the proxy behind the broker babbles');
    } else if (connection.readableEnded || connection.destroyed) {
      throw new EgressFailure(502, 'proxy_refused', 'the proxy behind the broker hung up');
    } else await Promise.race([once(connection, 'readable'), once(connection, 'end'), once(connection, 'close')]);
  }
  return Number(/^HTTP\/1\.[01] (\d{3})/.exec(head)?.[1] ?? 0);
}
