import { Duplex, PassThrough, Writable } from 'node:stream';
import type { Cluster } from './api.ts';
import { normalised } from './errors.ts';

/** A connection to a port of a pod, through the API server: `portforward` of the official client. */
export async function connectPort(cluster: Cluster, pod: string, port: number): Promise<Duplex> {
  const { client, config } = await cluster.connect();
  const input = new PassThrough();
  let duplex: Duplex | undefined;
  const output = new Writable({
    write: (piece: Buffer, _encoding, done) => {
      duplex?.push(piece);
      done();
    },
  });
  // Whatever the server says on the error channel, the connection is of no more use.
  const errors = new Writable({
    write: (piece: Buffer, _encoding, done) => {
      if (piece.length > 0) duplex?.destroy(new Error(piece.toString().slice(0, 300)));
      done();
    },
  });
  try {
    const forwarded = await new client.PortForward(config).portForward(
      cluster.namespace,
      pod,
      [port],
      output,
      errors,
      input,
    );
    const socket = typeof forwarded === 'function' ? forwarded() : forwarded;
    const made = new Duplex({
      read: () => undefined,
      write: (piece: Buffer, _encoding, done) => {
        if (input.write(piece)) done();
        else input.once('drain', () => done());
      },
      final: (done) => {
        input.end();
        done();
      },
      destroy: (error, done) => {
        input.destroy();
        socket?.close();
        done(error);
      },
    });
    duplex = made;
    socket?.once('close', () => made.push(null));
    socket?.once('error', (error: Error) => made.destroy(error));
    return made;
  } catch (error) {
    throw normalised(error, 'open a port');
  }
}
