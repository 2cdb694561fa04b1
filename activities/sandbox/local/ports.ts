import { spawn } from 'node:child_process';
import { Socket } from 'node:net';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import { hostScripts } from './enter.ts';
import { markerOf } from './holder.ts';
import { CLEAN_ENV, perlMissing } from './host.ts';
import type { SandboxRecord } from './record.ts';

const CONNECT_MS = 10_000;

/** A connection to 127.0.0.1 (or ::1) of the sandbox, made inside by a process that hands it over and ends. */
export function connectInside(rootDir: string, record: SandboxRecord, port: number): Promise<Socket> {
  const { holder } = record;
  if (holder === null || record.paused) throw new LonghaulError('sandbox_lost', 'the sandbox is not running');
  const identity = [markerOf(rootDir, record.id), String(record.uid), String(holder.pid), holder.startTime];
  const child = spawn('perl', ['-e', hostScripts().connect, '--', ...identity, String(port)], {
    env: CLEAN_ENV,
    cwd: '/',
    stdio: ['ignore', 'ipc', 'pipe'],
    timeout: CONNECT_MS,
    killSignal: 'SIGKILL',
  });
  let complaint = '';
  child.stderr?.on('data', (chunk: Buffer) => (complaint = `${complaint}${chunk.toString()}`.slice(0, 300)));
  return new Promise((resolve, reject) => {
    child.once('message', (_message, handle) => {
      if (handle instanceof Socket) resolve(handle);
      else reject(new LonghaulError('sandbox_unavailable', `port ${port}: no connection`));
    });
    child.once('error', (error) => reject(perlMissing(error)));
    child.once('close', () => {
      reject(new LonghaulError('sandbox_unavailable', complaint.trim() || `port ${port}: no answer in time`));
    });
  });
}
