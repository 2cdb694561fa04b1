import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { LonghaulError } from '../../../contracts/error-codes.ts';

const MAX_BYTES = 16 * 1024 * 1024;
const FILES = ['events.jsonl', 'workspace.yaml'] as const;

/** A session's folder below the runtime's home. */
function sessionFolder(home: string, sessionId: string): string {
  if (!/^[\w-]{1,128}$/.test(sessionId))
    throw new LonghaulError('harness_invalid', 'no session id', { field: 'token' });
  return path.join(home, 'session-state', sessionId);
}

/** Whether the runtime has written something of the session. */
export function isKept(home: string, sessionId: string): boolean {
  return existsSync(path.join(sessionFolder(home, sessionId), FILES[0]));
}

/** The files that make a session, or null when there are none or more than may be kept. */
export async function readState(home: string, sessionId: string): Promise<Uint8Array | null> {
  if (!isKept(home, sessionId)) return null;
  const folder = sessionFolder(home, sessionId);
  const entries = await Promise.all(
    FILES.map(async (name) => [name, await readFile(path.join(folder, name), 'utf8')] as const),
  );
  const state = Buffer.from(JSON.stringify(Object.fromEntries(entries)));
  return state.byteLength > MAX_BYTES ? null : state;
}

export async function writeState(home: string, sessionId: string, state: Uint8Array): Promise<void> {
  if (state.byteLength > MAX_BYTES) throw new LonghaulError('harness_invalid', 'at most 16 MiB', { field: 'state' });
  const folder = sessionFolder(home, sessionId);
  const files = JSON.parse(Buffer.from(state).toString('utf8')) as Record<string, unknown>;
  const texts = FILES.map((name) => {
    const text = files[name];
    if (typeof text !== 'string') throw new LonghaulError('harness_invalid', 'is no state', { field: 'state' });
    return [name, text] as const;
  });
  await mkdir(folder, { recursive: true, mode: 0o700 });
  for (const [name, text] of texts) await writeFile(path.join(folder, name), text, { mode: 0o600 });
}
