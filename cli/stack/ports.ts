import { mkdirSync } from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { acquireLock } from './lock.ts';

/** True when a server may bind this loopback port now. */
export function isPortFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = net.createServer();
    server.once('error', () => resolve(false));
    server.listen({ host: '127.0.0.1', port, exclusive: true }, () => server.close(() => resolve(true)));
  });
}

/**
 * Ports held by the stacks of this user. Without it two stacks that start together would both see the same port free, and a
 * restarting server could lose its port to another stack.
 */
export class PortReservations {
  readonly #folder = path.join(os.tmpdir(), `longhaul-ports-${process.getuid?.() ?? 0}`);
  readonly #held = new Map<number, { release(): void }>();

  /** Reserves one port when nobody holds or uses it. */
  async take(port: number): Promise<boolean> {
    if (this.#held.has(port)) return false;
    mkdirSync(this.#folder, { recursive: true, mode: 0o700 });
    const lock = acquireLock(path.join(this.#folder, String(port)));
    if (lock === null) return false;
    if (await isPortFree(port)) {
      this.#held.set(port, lock);
      return true;
    }
    lock.release();
    return false;
  }

  /** Reserves the first port that is free from `preferred` on. */
  async takeFrom(preferred: number): Promise<number> {
    const last = Math.min(preferred + 199, 65_535);
    for (let port = preferred; port <= last; port += 1) {
      if (await this.take(port)) return port;
    }
    throw new LonghaulError('setup_required', `No free port between ${preferred} and ${last}`);
  }

  release(): void {
    for (const lock of this.#held.values()) lock.release();
    this.#held.clear();
  }
}

/** A free port chosen by the system. */
export function anyFreePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = net.createServer();
    server.once('error', reject);
    server.listen({ host: '127.0.0.1', port: 0 }, () => {
      const address = server.address();
      server.close(() => {
        if (typeof address === 'object' && address !== null) resolve(address.port);
        else reject(new Error('The system gave no port'));
      });
    });
  });
}
