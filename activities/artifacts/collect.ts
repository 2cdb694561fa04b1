import { anyAbort } from '../../contracts/abort.ts';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { storeContent } from '../../db/file-content.ts';
import type { StoredContent } from '../../db/file-content.ts';
import { withTransaction } from '../../db/pool.ts';
import { insertAudit } from '../../db/queries/audit.ts';
import { wasSandboxUsedLately } from '../../db/queries/effects.ts';
import { appendEvents } from '../../db/queries/events.ts';
import {
  discardFile,
  finishFile,
  listArtifacts,
  requireFileRoom,
  retireOlderVersions,
} from '../../db/queries/files.ts';
import { currentSandbox } from '../../db/queries/sandboxes.ts';
import { lockSession } from '../../db/queries/session-status.ts';
import type { ActivityDeps } from '../deps.ts';
import { redactTexts } from '../redaction.ts';
import type { SandboxProvider, SandboxRef } from '../sandbox/port.ts';
import { cleanStream } from './clean.ts';
import type { FoundOutput, Skipped } from './find-outputs.ts';
import { findOutputs, OUTPUTS } from './find-outputs.ts';
import { mediaTypeOf } from './media-types.ts';

/**
 * At the end of a turn when it, or the one before, which may have been cut short, used the sandbox. Trouble with the sandbox does not keep the turn from ending: the log says
 * that the outputs were not taken, and the next turn or the end of the session takes them.
 */
export async function collectOutputsOf(
  deps: ActivityDeps,
  session: { id: string; teamId: string },
  turn: number,
  signal: AbortSignal,
): Promise<void> {
  if (await wasSandboxUsedLately(deps.pool, session.id, turn)) await collectOrTell(deps, session, signal);
}

/** Before the sandbox is paused or destroyed, for what a turn left that did not come to its end. */
export async function collectOrTell(
  deps: ActivityDeps,
  session: { id: string; teamId: string; isOver?: boolean },
  signal: AbortSignal,
): Promise<void> {
  const limit = AbortSignal.timeout(LIMITS.artifactsMs);
  try {
    await collectArtifacts(deps, session, anyAbort([signal, limit]));
  } catch (error) {
    const isSandbox = error instanceof LonghaulError && error.code.startsWith('sandbox_');
    // Whatever a call says that was broken off.
    const isTimeout = limit.aborted;
    if (signal.aborted || !(isSandbox || isTimeout)) throw error;
    deps.logger.warn({ sessionId: session.id, err: error }, 'outputs were not taken');
    const reason = isTimeout || !isSandbox ? `not within ${LIMITS.artifactsMs} ms` : error.message;
    if (session.isOver !== true) await tellSkipped(deps, session.id, [{ path: '', reason: reason.slice(0, 300) }]);
  }
}

interface Place {
  sessionId: string;
  teamId: string;
  provider: SandboxProvider;
  ref: SandboxRef;
  /** Nothing follows the end of a session in its log. */
  isOver: boolean;
}

/**
 * Takes what is new or changed under /mnt/session/outputs into the team's files, so that it outlives the sandbox. Repeating it
 * changes nothing; what a crash leaves half stored is pruned, and taken again by the next attempt. One output that cannot be
 * taken does not keep the others: the log says which and why.
 */
async function collectArtifacts(
  deps: ActivityDeps,
  session: { id: string; teamId: string; isOver?: boolean },
  signal: AbortSignal,
): Promise<void> {
  const sandbox = await currentSandbox(deps.pool, session.id);
  if (sandbox?.state !== 'running' || sandbox.ref === null) return;
  const provider = deps.sandboxProvider(sandbox.provider);
  const isOver = session.isOver === true;
  const place: Place = { sessionId: session.id, teamId: session.teamId, provider, ref: sandbox.ref, isOver };
  const known = new Map((await listArtifacts(deps.pool, session.id)).map((artifact) => [artifact.path, artifact]));
  const { outputs, skipped } = await findOutputs(provider, sandbox.ref, signal);
  const fresh = outputs.filter((output) => known.get(output.path)?.versionMark !== output.mark);
  let totalBytes = [...known.values()].reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  for (const output of fresh) {
    totalBytes += output.sizeBytes - (known.get(output.path)?.sizeBytes ?? 0);
    const refusal = refusalOf(output, totalBytes);
    if (refusal === undefined) await takeOne(deps, place, output, skipped, signal);
    else skipped.push({ path: output.path, reason: refusal });
  }
  if (!isOver) await tellSkipped(deps, session.id, skipped);
}

function refusalOf(output: FoundOutput, totalBytes: number): string | undefined {
  if (output.sizeBytes > LIMITS.artifactBytes) return `larger than ${LIMITS.artifactBytes} bytes`;
  if (totalBytes > LIMITS.artifactBytesPerSession) {
    return `all outputs of a session together may have ${LIMITS.artifactBytesPerSession} bytes`;
  }
  return undefined;
}

async function takeOne(
  deps: ActivityDeps,
  place: Place,
  output: FoundOutput,
  skipped: Skipped[],
  signal: AbortSignal,
): Promise<void> {
  try {
    await requireFileRoom(deps.pool, place.teamId);
    const content = await storeContent(
      deps.pool,
      {
        teamId: place.teamId,
        source: 'artifact',
        filename: output.path.split('/').at(-1) ?? output.path,
        mimeType: mediaTypeOf(output.path),
        createdBy: `session:${place.sessionId}`,
        sessionId: place.sessionId,
        path: output.path,
        versionMark: output.mark,
      },
      cleanStream(place.provider.readStream(place.ref, `${OUTPUTS}/${output.path}`, signal), async (text) => {
        const [clean = ''] = await redactTexts(deps, place.sessionId, [text], signal);
        return clean;
      }),
      LIMITS.artifactBytes,
    );
    await show(deps, place, output, content);
  } catch (error) {
    if (!(error instanceof LonghaulError) || error.retryable) throw error;
    skipped.push({ path: output.path, reason: error.message });
  }
}

/** One transaction: the file is there, the log says so, and older versions are on their way out. */
async function show(deps: ActivityDeps, place: Place, output: FoundOutput, content: StoredContent): Promise<void> {
  await withTransaction(deps.pool, async (tx) => {
    await lockSession(tx, place.sessionId);
    const known = (await listArtifacts(tx, place.sessionId)).find(({ path }) => path === output.path);
    // Another attempt was faster.
    if (known?.versionMark === output.mark) return discardFile(tx, content.id);
    const { id, sizeBytes, sha256 } = content;
    if (!(await finishFile(tx, id, { sizeBytes, sha256, expiresInMs: LIMITS.artifactTtlMs }))) return;
    await retireOlderVersions(tx, { id, keptMs: LIMITS.artifactOldVersionMs });
    const artifact = { file_id: id, path: output.path, mime_type: mediaTypeOf(output.path), size_bytes: sizeBytes };
    if (!place.isOver)
      await appendEvents(tx, place.sessionId, [
        { type: 'session.artifact_stored', dedupeKey: `artifact/${id}`, payload: artifact },
      ]);
    await insertAudit(tx, {
      teamId: place.teamId,
      actor: `session:${place.sessionId}`,
      action: 'file.artifact',
      resource: id,
      sessionId: place.sessionId,
      digest: sha256,
      details: { path: output.path, sizeBytes },
    });
  });
}

/** Once per path and reason: an output that stays too large is not told again every turn. */
async function tellSkipped(deps: ActivityDeps, sessionId: string, skipped: Skipped[]): Promise<void> {
  if (skipped.length === 0) return;
  await withTransaction(deps.pool, async (tx) => {
    await lockSession(tx, sessionId);
    await appendEvents(
      tx,
      sessionId,
      skipped.map(({ path, reason }) => ({
        type: 'session.artifact_skipped',
        dedupeKey: `artifact-skipped/${path}/${reason}`.slice(0, 500),
        payload: { path, reason },
      })),
    );
  });
}
