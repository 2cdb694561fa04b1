import { assertNever } from '../../contracts/states.ts';
import type { PlatformToolName } from '../../contracts/platform-tools.ts';
import { PLATFORM_INPUTS } from '../../contracts/tool-inputs.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { withTransaction } from '../../db/pool.ts';
import { findLatestForEffect } from '../../db/queries/approvals.ts';
import type { EffectRow } from '../../db/queries/effects.ts';
import { appendEvents } from '../../db/queries/events.ts';
import { listArtifacts } from '../../db/queries/files.ts';
import { lockSession } from '../../db/queries/session-status.ts';
import type { ActivityDeps } from '../deps.ts';
import { readSkill } from '../skills/read.ts';
import type { ToolOutcome } from './outcome.ts';
import { done } from './outcome.ts';

/** The product's own tools. Each may be run again: a second run changes nothing. */
export async function runPlatformTool(deps: ActivityDeps, effect: EffectRow): Promise<ToolOutcome> {
  const tool = effect.tool as PlatformToolName;
  switch (tool) {
    case 'list_artifacts':
      return done(await artifactsOf(deps, effect.sessionId));
    case 'read_skill':
      return readSkill(deps, effect);
    case 'report_issue':
      return done(await reportIssue(deps, effect));
    case 'request_approval':
      return done(await approvalText(deps, effect));
    default:
      return assertNever(tool);
  }
}

async function artifactsOf({ pool }: ActivityDeps, sessionId: string): Promise<string> {
  const found = await listArtifacts(pool, sessionId);
  if (found.length === 0) return 'No files are published yet.';
  const lines = found.slice(0, LIMITS.artifactsListed).map(({ path, sizeBytes }) => `${path}\t${sizeBytes} bytes`);
  const more = found.length - lines.length;
  return [...lines, ...(more > 0 ? [`… and ${more} more`] : [])].join('\n');
}

async function reportIssue({ pool }: ActivityDeps, effect: EffectRow): Promise<string> {
  const { title, details, severity } = PLATFORM_INPUTS.report_issue.parse(effect.input);
  await withTransaction(pool, async (tx) => {
    await lockSession(tx, effect.sessionId);
    await appendEvents(tx, effect.sessionId, [
      {
        type: 'session.issue_reported',
        dedupeKey: `issue/${effect.id}`,
        payload: { tool_use_id: effect.id, title, details: details ?? null, severity: severity ?? 'warning' },
      },
    ]);
  });
  return 'Reported. Nobody answers; go on.';
}

/** Only a yes gets here: a no is what the approval itself closes the effect with. */
async function approvalText({ pool }: ActivityDeps, effect: EffectRow): Promise<string> {
  const approval = await findLatestForEffect(pool, effect.id);
  const lines = ['Approved by a person.'];
  const message = approval?.message ?? '';
  if (message !== '') lines.push(`They say: ${message}`);
  const changed = approval?.editedInput?.['arguments'];
  if (changed !== undefined) lines.push(`They changed the arguments to: ${JSON.stringify(changed)}`);
  return lines.join('\n');
}
