import { spawn } from 'node:child_process';
import net from 'node:net';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { porterScript } from './script.ts';

/** A process whose network namespace is meant; its start time tells it from a later one with the same number. */
export interface NamespacePoint {
  pid: number;
  startTime: string;
}

/** The environment of the porter: nothing of the broker's own gets near a sandbox. */
const CLEAN_ENV = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C' };
const PORTER_MS = 10_000;

/** A server that listens on 127.0.0.1 inside the namespace. Add the listener for connections at once. */
export async function listenInside(point: NamespacePoint, port: number): Promise<net.Server> {
  const handle = await fetchHandle('listen', point, port);
  if (!(handle instanceof net.Server)) throw new LonghaulError('internal', 'the porter sent no listener');
  return handle;
}

/** A connection to a program that listens on 127.0.0.1 inside the namespace. */
export async function connectInside(point: NamespacePoint, port: number): Promise<net.Socket> {
  const handle = await fetchHandle('connect', point, port);
  if (!(handle instanceof net.Socket)) throw new LonghaulError('internal', 'the porter sent no connection');
  return handle;
}

function fetchHandle(mode: 'listen' | 'connect', point: NamespacePoint, port: number): Promise<unknown> {
  const script = porterScript(process.arch);
  if (process.platform !== 'linux' || script === null) {
    const message = `sandboxes cannot be joined on ${process.platform} ${process.arch}`;
    return Promise.reject(new LonghaulError('sandbox_unsupported', message));
  }
  const args = ['-e', script, '--', mode, String(point.pid), point.startTime, String(port)];
  const child = spawn('perl', args, {
    env: CLEAN_ENV,
    cwd: '/',
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    timeout: PORTER_MS,
    killSignal: 'SIGKILL',
  });
  let complaint = '';
  child.stderr?.on('data', (chunk: Buffer) => (complaint = (complaint + chunk.toString()).slice(0, 500)));
  return new Promise((resolve, reject) => {
    child.once('message', (_message, handle) => resolve(handle));
    child.once('error', (cause) => {
      reject(new LonghaulError('sandbox_unavailable', 'perl could not be started (package perl-base)', { cause }));
    });
    // After the last message: an exit without one is a failure.
    child.once('close', (code, signal) => reject(failure(complaint.trim() || `it ended (${signal ?? code})`)));
  });
}

function failure(complaint: string): LonghaulError {
  if (/gone|No such process/.test(complaint)) {
    return new LonghaulError('sandbox_lost', 'the process that holds the network of the sandbox is gone');
  }
  if (/own network/.test(complaint)) {
    return new LonghaulError('sandbox_unsupported', 'the sandbox has no network of its own');
  }
  return new LonghaulError('sandbox_unavailable', `the network of the sandbox cannot be joined: ${complaint}`);
}
