import { randomUUID } from 'node:crypto';
import { closeSync, existsSync, fstatSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import { LIMITS } from '../../../contracts/limits.ts';
import type { ExecSignal } from '../port.ts';
import { killProcess } from './host.ts';
import { execStatus, put, supervisorOf } from './journal.ts';

/** Makes a command feedable; before it is claimed. */
export function openInput(dir: string): void {
  writeFileSync(path.join(dir, 'input'), '', { flag: 'a', mode: 0o600 });
}

/**
 * The input is a file in which every byte stands at its offset, and the supervisor feeds from there: a byte that was
 * written is fed once, whoever wrote it and however often, and whoever died.
 */
export function feedInput(dir: string, offset: number, data: Uint8Array | null): number {
  if (!Number.isSafeInteger(offset) || offset < 0) throw invalid('must be a whole number from 0', 'offset');
  const total = endOf(dir);
  const file = openFile(dir);
  try {
    const size = fstatSync(file).size;
    if (offset > size) throw invalid(`leaves a gap: the next byte is ${size}`, 'offset');
    const end = offset + (data?.length ?? 0);
    if (total !== undefined && end > total) throw invalid('the input has ended', 'data');
    if (data === null) return endInput(dir, offset, size);
    if (end > LIMITS.execInputBytes) {
      throw new LonghaulError('sandbox_quota', `a command takes at most ${LIMITS.execInputBytes} bytes of input`);
    }
    for (let at = Math.max(offset, Math.min(size, end)); at < end;) {
      at += writeSync(file, data, at - offset, end - at, at);
    }
    wake(dir);
    return Math.max(size, end);
  } finally {
    closeSync(file);
  }
}

function endInput(dir: string, offset: number, size: number): number {
  if (offset < size) throw invalid(`input was given up to ${size}`, 'offset');
  if (endOf(dir) === undefined) put(dir, 'input.end', String(size));
  wake(dir);
  return size;
}

function endOf(dir: string): number | undefined {
  try {
    return Number(readFileSync(path.join(dir, 'input.end'), 'utf8'));
  } catch {
    return undefined;
  }
}

function openFile(dir: string): number {
  try {
    return openSync(path.join(dir, 'input'), 'r+');
  } catch (error) {
    throw new LonghaulError('sandbox_invalid', 'was not started with open input', { field: 'execId', cause: error });
  }
}

function invalid(message: string, field: string): LonghaulError {
  return new LonghaulError('sandbox_invalid', message, { field });
}

/** It looks by itself too, only later. */
function wake(dir: string): void {
  const supervisor = supervisorOf(dir);
  if (supervisor !== undefined && execStatus(dir).state === 'running') killProcess(supervisor, 'SIGUSR1');
}

/** Asks the supervisor, who knows which processes are the command's. */
export async function signalExec(dir: string, name: ExecSignal, signal: AbortSignal): Promise<boolean> {
  if (execStatus(dir).state !== 'running') return false;
  const request = path.join(dir, `signal.${randomUUID()}`);
  put(dir, path.basename(request), name.slice('SIG'.length));
  try {
    for (;;) {
      wake(dir);
      for (let look = 0; look < 20; look += 1) {
        if (!existsSync(request)) return true;
        if (execStatus(dir).state !== 'running') return !existsSync(request);
        await delay(look, undefined, { signal });
      }
    }
  } finally {
    rmSync(request, { force: true });
  }
}
