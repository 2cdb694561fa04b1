import { rm } from 'node:fs/promises';
import { findHarnessToken } from '../../db/queries/harness-sessions.ts';
import { currentSandbox } from '../../db/queries/sandboxes.ts';
import type { SessionForTurn } from '../../db/queries/session-status.ts';
import type { ActivityDeps } from '../deps.ts';
import type { SandboxPlace } from './port.ts';
import { closingSpec, sessionFolder } from './spec.ts';

const CLOSE_MS = 30_000;

/**
 * Ends what runs for a session in its harness; with `forget` its files, too. What is left over ends by itself or with its
 * sandbox: it is no reason for a session not to end.
 */
export async function closeHarness(deps: ActivityDeps, session: SessionForTurn, forget: boolean): Promise<void> {
  const { harness } = session.agent;
  if (harness === 'native') return;
  try {
    const token = await findHarnessToken(deps.pool, session.id);
    const driver = deps.harness.driver(harness);
    const spec = closingSpec(deps, session, await runningPlace(deps, session));
    await driver.close(spec, token, forget, AbortSignal.timeout(CLOSE_MS));
  } catch (error) {
    deps.logger.warn({ sessionId: session.id, err: error }, 'the harness of a session could not be closed');
  }
  if (forget) await rm(sessionFolder(deps, session.id), { recursive: true, force: true });
}

/** A sandbox that sleeps or is gone runs nothing. */
async function runningPlace(deps: ActivityDeps, session: SessionForTurn): Promise<SandboxPlace | undefined> {
  if (session.agent.placement !== 'sandbox') return undefined;
  const row = await currentSandbox(deps.pool, session.id);
  if (row?.state !== 'running' || row.ref === null) return undefined;
  return { provider: deps.sandboxProvider(row.provider), ref: row.ref, env: {} };
}
