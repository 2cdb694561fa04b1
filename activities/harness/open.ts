import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { ApplicationFailure } from '@temporalio/activity';
import type { ContentBlock } from '../../contracts/definitions.ts';
import type { HarnessName } from '../../contracts/harnesses.ts';
import { withTransaction } from '../../db/pool.ts';
import { markEventsProcessed } from '../../db/queries/events.ts';
import type { BegunAttempt } from '../../db/queries/harness-sessions.ts';
import {
  beginAttempt,
  listTurnContent,
  readHarnessState,
  saveHarnessToken,
} from '../../db/queries/harness-sessions.ts';
import { endInputs, inputModel, takeInputs } from '../../db/queries/inputs.ts';
import type { SessionForTurn } from '../../db/queries/session-status.ts';
import { lockSession, setRunning } from '../../db/queries/session-status.ts';
import { closeStaleTurns } from '../../db/queries/turn-end.ts';
import { lockTurn, openTurn, turnModel } from '../../db/queries/turns.ts';
import type { HarnessTurnArgs } from '../../workflows/harness-types.ts';
import type { ActivityDeps } from '../deps.ts';
import type { HarnessDriver, HarnessHandle, HarnessSpec } from './port.ts';
import { sessionFolder } from './spec.ts';

/** The turn as this attempt finds it. */
export interface OpenedTurn extends BegunAttempt {
  model: string;
  content: ContentBlock[];
}

/** Opens turn and attempt in the record, as a step does. Undefined: the turn is over, there is nothing to run. */
export async function openHarnessTurn(
  deps: ActivityDeps,
  session: SessionForTurn,
  args: HarnessTurnArgs,
): Promise<OpenedTurn | undefined> {
  const { harness, placement = 'inline' } = session.agent;
  return withTransaction(deps.pool, async (tx) => {
    const status = await lockSession(tx, session.id);
    if (status === 'terminated')
      throw ApplicationFailure.nonRetryable('the session is terminated', 'session_terminated');
    await closeStaleTurns(tx, session.id, args.turn);
    await openTurn(tx, session.id, args.turn, (await inputModel(tx, args.eventIds)) ?? session.agent.model.id);
    await takeInputs(tx, session.id, args.turn, args.eventIds);
    await markEventsProcessed(tx, args.eventIds);
    if ((await lockTurn(tx, session.id, args.turn)) !== 'running') {
      const { eventIds } = args;
      await endInputs(tx, { sessionId: session.id, eventIds }, 'failed', 'its turn had ended already');
      return undefined;
    }
    if (status !== 'rescheduling') await setRunning(tx, session.id);
    const begun = await beginAttempt(tx, args, { name: harness as HarnessName, placement });
    const model = (await turnModel(tx, session.id, args.turn)) ?? session.agent.model.id;
    return { ...begun, model, content: await listTurnContent(tx, session.id, args.turn) };
  });
}

/** Opens the session of the harness, or finds it again; on a machine that never had it, from what was exported last. */
export async function openHarness(
  deps: ActivityDeps,
  driver: HarnessDriver,
  spec: HarnessSpec,
  opened: OpenedTurn,
  signal: AbortSignal,
): Promise<HarnessHandle> {
  const { token } = opened;
  if (token !== null && spec.placement === 'inline' && !existsSync(sessionFolder(deps, spec.sessionId))) {
    const state = await readHarnessState(deps.pool, spec.sessionId);
    if (state !== null) await driver.importState(spec, token, state, signal);
  }
  const handle = await driver.open(spec, token, signal);
  await saveHarnessToken(deps.pool, spec.sessionId, handle.resumeToken, handle.harnessSessionId);
  return handle;
}

/** 32 hex digits that every attempt at a turn makes again: the harness is sent the message of a turn once. */
export function messageIdOf(sessionId: string, turn: number): string {
  return createHash('sha256').update(`${sessionId}/${turn}/message`).digest('hex').slice(0, 32);
}
