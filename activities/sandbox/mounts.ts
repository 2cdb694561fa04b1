import { randomUUID } from 'node:crypto';
import { anyAbort } from '../../contracts/abort.ts';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { LIMITS } from '../../contracts/limits.ts';
import type { StoredFileResource } from '../../contracts/session-resources.ts';
import { readContent } from '../../db/file-content.ts';
import type { FileRow } from '../../db/queries/files.ts';
import { getFile } from '../../db/queries/files.ts';
import type { SandboxRow } from '../../db/queries/sandboxes.ts';
import { getSandbox, recordMount } from '../../db/queries/sandboxes.ts';
import type { SessionForTurn } from '../../db/queries/session-status.ts';
import type { ActivityDeps } from '../deps.ts';
import type { Lease } from './lease.ts';
import { runStep, StepFailed, tell } from './step.ts';

interface Mounting {
  deps: ActivityDeps;
  session: SessionForTurn;
  sandbox: SandboxRow;
  lease: Lease;
  signal: AbortSignal;
}

const PREFIX = 'file.';
const stepOf = ({ id }: StoredFileResource): string => `${PREFIX}${id}`;

function filesOf({ resources }: Pick<SessionForTurn, 'resources'>): StoredFileResource[] {
  return resources.filter((resource) => resource.type === 'file');
}

/** Names what is to be mounted: what was made ready for another set of files is not ready for this one. */
export function mountsKey(session: Pick<SessionForTurn, 'resources'>): string {
  return filesOf(session).map(stepOf).join(' ');
}

/** Files of the session that this sandbox has not yet. */
export function missingMounts(session: SessionForTurn, { steps }: Pick<SandboxRow, 'steps'>): StoredFileResource[] {
  return filesOf(session).filter((file) => !steps.includes(stepOf(file)));
}

/** The steps that mounted files. */
export function mountSteps(steps: readonly string[]): string[] {
  return steps.filter((step) => step.startsWith(PREFIX));
}

/**
 * Puts the session's files where they belong, each recorded for itself: an attempt after a crash goes on with the next one,
 * and one that is added later is all that is missing. In a sandbox that is prepared already a file that cannot be mounted
 * is told, to people and to the agent: what the agent has made there is worth more.
 */
export async function mountFiles(mounting: Mounting): Promise<void> {
  const { deps, session, sandbox } = mounting;
  const row = (await getSandbox(deps.pool, sandbox.id)) ?? sandbox;
  for (const file of missingMounts(session, row)) {
    try {
      const sizeBytes = await mountFile(mounting, row, file);
      const note = `The file ${file.mount_path} was added: ${sizeBytes} bytes.`;
      await recordMount(deps.pool, sandbox.id, stepOf(file), file.late ? note : null);
    } catch (error) {
      if (!(error instanceof StepFailed)) throw error;
      await tellStep(mounting, file, 'ends', { state: 'failed', exit_code: null, output: error.message });
      if (row.preparedAt === null) throw error;
      const note = `The file ${file.mount_path} could not be added: ${error.message}.`;
      await recordMount(deps.pool, sandbox.id, stepOf(file), note);
    }
  }
}

async function mountFile(mounting: Mounting, row: SandboxRow, file: StoredFileResource): Promise<number> {
  const { deps, session, lease, signal } = mounting;
  const startedMs = Date.now();
  await tellStep(mounting, file, 'begins', { state: 'running' });
  const content = await requireContent(deps, session, file);
  if (!(await wasSaved(lease, row, file, signal))) await write(mounting, file);
  const output = `${file.file_id} is ${file.mount_path}: ${content.sizeBytes} bytes`;
  const durationMs = Date.now() - startedMs;
  await tellStep(mounting, file, 'ends', { state: 'done', exit_code: null, output, duration_ms: durationMs });
  return content.sizeBytes;
}

/** What the agent had made of it is in the saved files the sandbox began with. */
async function wasSaved(
  { provider, ref }: Lease,
  { start }: SandboxRow,
  file: StoredFileResource,
  signal: AbortSignal,
): Promise<boolean> {
  if (start?.kind !== 'session' || start.ref.mounted?.includes(stepOf(file)) !== true) return false;
  return (await provider.stat(ref, file.mount_path, signal)) !== null;
}

async function write({ deps, session, lease, signal: given }: Mounting, file: StoredFileResource): Promise<void> {
  const timeout = AbortSignal.timeout(LIMITS.mountTimeoutMs);
  const signal = anyAbort([given, timeout]);
  try {
    await stageAndMove(deps, lease, file, await requireContent(deps, session, file), signal);
  } catch (error) {
    if (given.aborted) throw error;
    if (timeout.aborted) throw failed(file, `it took longer than ${LIMITS.mountTimeoutMs / 1_000} s`);
    // Deleted while it was read; what the provider makes of a stream that breaks off is its own.
    await requireContent(deps, session, file);
    if (!(error instanceof LonghaulError) || error.retryable || GONE.has(error.code)) throw error;
    throw failed(file, error.message);
  }
}

/** Exit code of `MOVE` when another attempt took the staged file away. */
const NOT_STAGED = 75;
const MOVE = `[ -e "$1" ] || exit ${NOT_STAGED}; mv -fT -- "$1" "$2"`;

/**
 * Through a folder of its own beside the place, on the same file system: what an attempt leaves that was killed is found
 * there by the next one, and nobody sees a part of the file.
 */
async function stageAndMove(
  { pool }: ActivityDeps,
  lease: Lease,
  file: StoredFileResource,
  { id, sizeBytes }: FileRow,
  signal: AbortSignal,
): Promise<void> {
  const { provider, ref } = lease;
  const at = file.mount_path;
  const stage = `${at.slice(0, at.lastIndexOf('/'))}/.longhaul-${file.id}`;
  const staged = `${stage}/file`;
  await provider.remove(ref, stage, signal);
  try {
    await provider.writeStream(ref, staged, readContent(pool, id, 0, sizeBytes), signal);
    // A move may be repeated, so each attempt has one of its own.
    const name = `${stepOf(file)}.${randomUUID()}`;
    const argv = ['sh', '-c', MOVE, 'move', staged, at];
    const { status, output } = await runStep(lease, { name, argv, timeoutMs: LIMITS.mountTimeoutMs }, signal);
    if (status.state !== 'exited') throw failed(file, `it was killed (${status.reason})`);
    if (status.exitCode === NOT_STAGED)
      throw new LonghaulError('sandbox_unavailable', 'mounted by another attempt too');
    if (status.exitCode !== 0) throw failed(file, output.trim() || `exit code ${status.exitCode}`);
  } finally {
    await provider.remove(ref, stage, signal).catch(() => undefined);
  }
}

/** Of the sandbox, not of the file. */
const GONE: ReadonlySet<string> = new Set(['sandbox_lost', 'sandbox_not_found']);

async function requireContent(
  { pool }: ActivityDeps,
  { teamId }: SessionForTurn,
  file: StoredFileResource,
): Promise<FileRow> {
  try {
    return await getFile(pool, teamId, file.file_id);
  } catch (error) {
    if (!(error instanceof LonghaulError) || error.code !== 'not_found') throw error;
    throw failed(file, `the file ${file.file_id} was deleted or has expired; remove the resource ${file.id}`);
  }
}

function failed(file: StoredFileResource, message: string): StepFailed {
  return new StepFailed(`file ${file.mount_path}`, message);
}

async function tellStep(
  { deps, session, sandbox }: Mounting,
  file: StoredFileResource,
  part: 'begins' | 'ends',
  payload: Record<string, unknown>,
): Promise<void> {
  const step = stepOf(file);
  await tell(deps, session.id, [
    {
      type: 'session.sandbox_step',
      dedupeKey: `sandbox/${sandbox.id}/${step}/${part}`,
      payload: { sandbox_id: sandbox.id, step, ...payload },
    },
  ]);
}
