import { createHash } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
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
import type { HarnessDriver, HarnessHandle, HarnessSpec, ResumeToken } from './port.ts';
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

/** Opens the session of the harness, or finds it again; on a machine that lacks its last turns, from what was exported. */
export async function openHarness(
  deps: ActivityDeps,
  driver: HarnessDriver,
  spec: HarnessSpec,
  opened: OpenedTurn,
  signal: AbortSignal,
): Promise<HarnessHandle> {
  const { token } = opened;
  if (token !== null && spec.placement === 'inline') await bringState(deps, driver, spec, token, signal);
  const handle = await driver.open(spec, token, signal);
  await saveHarnessToken(deps.pool, spec.sessionId, handle.resumeToken, handle.harnessSessionId);
  return handle;
}

/** Another machine may have had the session since it was here last: then what is here is old, however whole it looks. */
async function bringState(
  deps: ActivityDeps,
  driver: HarnessDriver,
  spec: HarnessSpec,
  token: ResumeToken,
  signal: AbortSignal,
): Promise<void> {
  const { sessionId } = spec;
  const exported = await readHarnessState(deps.pool, sessionId, await lastTurnHere(deps, sessionId));
  if (exported === undefined) return;
  await driver.importState(spec, token, exported.state, signal);
  // Before anything is added to it: it must not be brought a second time.
  await noteTurnHere(deps, sessionId, exported.turn);
}

const lastTurnFile = (deps: ActivityDeps, sessionId: string): string =>
  path.join(sessionFolder(deps, sessionId), 'last-turn');

/** Notes that this machine has the harness's state as of the end of a turn. */
export async function noteTurnHere(deps: ActivityDeps, sessionId: string, turn: number): Promise<void> {
  await writeFile(lastTurnFile(deps, sessionId), String(turn), { mode: 0o600 });
}

/** 0: it has none. */
async function lastTurnHere(deps: ActivityDeps, sessionId: string): Promise<number> {
  try {
    return Number.parseInt(await readFile(lastTurnFile(deps, sessionId), 'utf8'), 10) || 0;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return 0;
    throw error;
  }
}

/** 32 hex digits that every attempt at a turn makes again: the harness is sent the message of a turn once. */
export function messageIdOf(sessionId: string, turn: number): string {
  return createHash('sha256').update(`${sessionId}/${turn}/message`).digest('hex').slice(0, 32);
}
