import { stateOf } from '../journal/index.ts';
import type { ExecPoll, ExecState } from '../port.ts';
import type { Engine } from './engine.ts';
import { readTarFile } from './tar.ts';

const PIECE_BYTES = 1024 * 1024;
const RECORD_BYTES = 1_024;

/** What the engine tells of one file of a container. */
export interface OutsideStat {
  name: string;
  size: number;
  mtime: string;
  linkTarget: string;
}

/** Null when there is no such file. A link is not followed. */
export async function statOutside(
  engine: Engine,
  container: string,
  path: string,
  signal: AbortSignal,
): Promise<OutsideStat | null> {
  const answer = await engine.open('HEAD', `/containers/${container}/archive`, {
    signal,
    query: { path },
    ok: [200, 404],
  });
  await answer.body.resume().toArray();
  const stat = answer.headers['x-docker-container-path-stat'];
  if (answer.status === 404 || typeof stat !== 'string') return null;
  return JSON.parse(Buffer.from(stat, 'base64').toString()) as OutsideStat;
}

async function readOutside(
  engine: Engine,
  container: string,
  path: string,
  options: { offset: number; maxBytes: number; signal: AbortSignal },
): Promise<Buffer | null> {
  const { signal, offset, maxBytes } = options;
  const route = `/containers/${container}/archive`;
  const { status, body } = await engine.open('GET', route, { signal, query: { path }, ok: [200, 404] });
  if (status === 200) return await readTarFile(body, offset, maxBytes);
  await body.resume().toArray();
  return null;
}

/**
 * The journal of a container in which nothing can be started, since it is paused or stopped: read from outside, through the
 * engine's archives. What ran in a frozen one still does.
 */
export async function pollOutside(
  engine: Engine,
  container: string,
  options: { folder: string; execId: string; isFrozen: boolean; from: { out: number; err: number } },
  signal: AbortSignal,
): Promise<ExecPoll> {
  const { execId, folder, from, isFrozen } = options;
  const at = `${folder}/x-${execId}`;
  const read = (name: string, offset: number, maxBytes: number): Promise<Buffer | null> =>
    readOutside(engine, container, `${at}/${name}`, { offset, maxBytes, signal });
  const exit = await read('exit', 0, RECORD_BYTES);
  const claim = exit === null ? await statOutside(engine, container, `${at}/go`, signal) : null;
  const status = exit === null ? statusOfClaim(claim, isFrozen) : statusOfExit(exit.toString());
  const stdout = (await read('out', from.out, PIECE_BYTES)) ?? Buffer.alloc(0);
  const stderr = (await read('err', from.err, PIECE_BYTES)) ?? Buffer.alloc(0);
  return { status, stdout, stderr, next: { out: from.out + stdout.length, err: from.err + stderr.length } };
}

function statusOfExit(record: string): ExecState {
  const [kind = '', code = '', why = ''] = record.trim().split(' ');
  return stateOf(kind, code, why);
}

function statusOfClaim(claim: OutsideStat | null, isFrozen: boolean): ExecState {
  if (claim === null) return { state: 'absent' };
  if (claim.linkTarget.split('/').at(-1)?.startsWith('never.') === true) return { state: 'killed', reason: 'signal' };
  return { state: isFrozen ? 'running' : 'lost' };
}
