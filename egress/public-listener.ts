import { readFileSync } from 'node:fs';
import net from 'node:net';
import tls from 'node:tls';
import type { PublicListenerConfig } from './config.ts';
import type { Front } from './proxy/front.ts';

/** Connections nobody has said yet whose they are. */
const CONNECTIONS_MAX = 2_000;

/** Serves sandboxes that are elsewhere. Each request says whose it is; behind that it is the same proxy. */
export async function listenPublicly(config: PublicListenerConfig, front: Front): Promise<net.Server> {
  const onConnection = (socket: net.Socket): void => front.acceptUnknown(socket);
  const server =
    config.tls === null
      ? net.createServer({ allowHalfOpen: true }, onConnection)
      : tls.createServer(
          {
            cert: readFileSync(config.tls.certFile),
            key: readFileSync(config.tls.keyFile),
            minVersion: 'TLSv1.2',
            handshakeTimeout: 10_000,
          },
          onConnection,
        );
  server.maxConnections = CONNECTIONS_MAX;
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(config.port, config.host, resolve);
  });
  return server;
}
