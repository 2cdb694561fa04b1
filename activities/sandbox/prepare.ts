import type { EnvironmentRepository } from '../../contracts/definitions.ts';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { assertNever } from '../../contracts/states.ts';
import { withTransaction } from '../../db/pool.ts';
import { insertEnvironmentSnapshot, useEnvironmentSnapshot } from '../../db/queries/environment-snapshots.ts';
import { appendEvents } from '../../db/queries/events.ts';
import type { SandboxRow } from '../../db/queries/sandboxes.ts';
import { addNote, getSandbox, recordFailure, recordPrepared, recordStep } from '../../db/queries/sandboxes.ts';
import type { SessionForTurn } from '../../db/queries/session-status.ts';
import { loadSessionForTurn, lockSession } from '../../db/queries/session-status.ts';
import type { ActivityDeps } from '../deps.ts';
import { redactTexts } from '../redaction.ts';
import { STEPS } from './create.ts';
import { currentCredentials } from './credentials.ts';
import { cloudEnvironment, hasSetup, setupHash } from './environment.ts';
import { sandboxRow } from './generations.ts';
import type { Lease } from './lease.ts';
import { forgetLease, runningSandbox } from './lease.ts';
import { missingMounts, mountFiles } from './mounts.ts';
import { installCommand, UNAVAILABLE_EXIT, wantedPackages } from './packages.ts';
import { mayHoldPlaceholders } from './placeholders.ts';
import { releaseSandbox } from './release.ts';
import { whileRenewed } from './renew.ts';
import { cloneCommand, credentialFor } from './repositories.ts';
import type { Step, StepEnd } from './step.ts';
import { runStep, SandboxDied, StepFailed, tell } from './step.ts';

export type Prepared = { state: 'ready' | 'failed' };

/** Begins the line that tells the agent of it. */
const NOT_INSTALLED = 'Not installed, packages';

interface Work {
  deps: ActivityDeps;
  session: SessionForTurn;
  sandbox: SandboxRow;
  lease: Lease;
  signal: AbortSignal;
}

/**
 * Makes the session's sandbox ready: created, let out, packages, set-up, saved, repositories, files. Every step is recorded
 * when it is done and runs under an id of its own, so an attempt after a crash goes on where the last one was. A sandbox that dies
 * meanwhile is replaced, a few times; a step that fails ends it, with an event that says why.
 */
export async function prepareSandbox(deps: ActivityDeps, sessionId: string, signal: AbortSignal): Promise<Prepared> {
  const session = await loadSessionForTurn(deps.pool, sessionId);
  for (;;) {
    const row = await sandboxRow(deps, session, cloudEnvironment(session).provider);
    if (row.kind === 'failed') return { state: 'failed' };
    const { sandbox } = row;
    if (sandbox.preparedAt !== null && missingMounts(session, sandbox).length === 0) return { state: 'ready' };
    try {
      if (sandbox.attempt > LIMITS.sandboxPrepareTries) {
        throw new StepFailed('create', `${LIMITS.sandboxPrepareTries} sandboxes died one after the other`);
      }
      const lease = await runningSandbox(deps, session, sandbox, signal);
      if (lease === null) continue;
      const work = { deps, session, sandbox, lease, signal };
      const prepare = sandbox.preparedAt === null ? prepareIn : mountFiles;
      await whileRenewed(deps, lease, () => prepare(work));
      return { state: 'ready' };
    } catch (error) {
      if (signal.aborted) throw error;
      if (sandbox.preparedAt !== null) throw asRetryable(error);
      if (error instanceof SandboxDied || isGone(error)) {
        // Half of a set-up is no place to begin: another sandbox begins anew.
        await releaseSandbox(deps, sandbox, signal);
        continue;
      }
      const failure = asFailure(error);
      if (failure === null) throw error;
      await fail(deps, sandbox, failure);
      await releaseSandbox(deps, sandbox, signal);
      return { state: 'failed' };
    } finally {
      forgetLease(deps, sessionId);
    }
  }
}

/** A sandbox that the agent has worked in is not given up for a file: the next attempt wakes it, or finds it gone. */
function asRetryable(error: unknown): unknown {
  if (!isGone(error) && !(error instanceof SandboxDied)) return error;
  return new LonghaulError('sandbox_unavailable', 'the sandbox died while a file was mounted', { cause: error });
}

function isGone(error: unknown): boolean {
  return error instanceof LonghaulError && (error.code === 'sandbox_lost' || error.code === 'sandbox_not_found');
}

/** What no other attempt can make good; null: try again. */
function asFailure(error: unknown): { step: string; message: string } | null {
  if (error instanceof StepFailed) return { step: error.step, message: error.message };
  if (!(error instanceof LonghaulError) || error.retryable) return null;
  return { step: 'create', message: `${error.code}: ${error.message}` };
}

async function prepareIn(work: Work): Promise<void> {
  const { deps, session, sandbox } = work;
  const environment = cloudEnvironment(session);
  const { steps } = (await getSandbox(deps.pool, sandbox.id)) ?? sandbox;
  const start = { sandbox_id: sandbox.id, provider: sandbox.provider };
  await tell(deps, session.id, [
    { type: 'session.sandbox_preparing', dedupeKey: `sandbox/${sandbox.id}/preparing`, payload: start },
  ]);
  for (const step of STEPS) {
    if (steps.includes(step)) continue;
    if (step === 'packages') for (const wanted of wantedPackages(environment)) await install(work, wanted);
    else if (step === 'setup') await runSetup(work, environment.setup_script);
    else if (step === 'saved') await saveSetup(work);
    else if (step === 'repositories') await cloneAll(work);
    else assertNever(step);
    await recordStep(deps.pool, sandbox.id, step);
  }
  await mountFiles(work);
  await recordPrepared(deps.pool, sandbox.id);
  await tell(deps, session.id, [
    { type: 'session.sandbox_ready', dedupeKey: `sandbox/${sandbox.id}/ready`, payload: start },
  ]);
}

/** Runs one command of a step and writes its end into the log. */
async function told({ deps, session, sandbox, lease, signal }: Work, step: Step): Promise<StepEnd> {
  const key = `sandbox/${sandbox.id}/${step.name}`;
  const payload = { sandbox_id: sandbox.id, step: step.name };
  await tell(deps, session.id, [
    { type: 'session.sandbox_step', dedupeKey: `${key}/begins`, payload: { ...payload, state: 'running' } },
  ]);
  const ended = await runStep(lease, step, signal);
  const [output = ''] = await redactTexts(deps, session.id, [ended.output], signal);
  const { status, durationMs } = ended;
  const exitCode = status.state === 'exited' ? status.exitCode : null;
  const state = exitCode === 0 ? 'done' : exitCode === UNAVAILABLE_EXIT ? 'unavailable' : 'failed';
  await tell(deps, session.id, [
    {
      type: 'session.sandbox_step',
      dedupeKey: `${key}/ends`,
      payload: { ...payload, state, exit_code: exitCode, output, duration_ms: durationMs },
    },
  ]);
  return { ...ended, output };
}

/** Throws unless the command ended well. */
function requireSuccess(name: string, { status, output }: StepEnd, timeoutMs: number): void {
  if (status.state === 'exited' && status.exitCode === 0) return;
  const last = output.trimEnd().split('\n').slice(-5).join('\n');
  const how =
    status.state === 'exited'
      ? `exit code ${status.exitCode}`
      : status.reason === 'timeout'
        ? `it took longer than ${timeoutMs / 1_000} s`
        : `it was killed (${status.reason})`;
  throw new StepFailed(name, last === '' ? how : `${how}: ${last}`);
}

/** A package manager that is not there is told, to the agent too, and no reason to have no sandbox. */
async function install(work: Work, wanted: ReturnType<typeof wantedPackages>[number]): Promise<void> {
  const name = `packages.${wanted.manager}`;
  const timeoutMs = LIMITS.packagesTimeoutMs;
  const end = await told(work, { name, argv: installCommand(wanted.manager, wanted.packages), timeoutMs });
  if (end.status.state === 'exited' && end.status.exitCode === UNAVAILABLE_EXIT) {
    const why = end.output.trimEnd().split('\n').at(-1) ?? '';
    await addNote(work.deps.pool, work.sandbox.id, `${NOT_INSTALLED} of ${wanted.manager}: ${why}`);
    return;
  }
  requireSuccess(name, end, timeoutMs);
}

async function runSetup(work: Work, script: string | null): Promise<void> {
  if (script === null) return;
  const timeoutMs = LIMITS.setupTimeoutMs;
  // As a file: an argument may not be as long as a script may.
  const run = 'f=$(mktemp) && cat > "$f" && chmod 700 "$f" && exec "$@" "$f" < /dev/null';
  const interpreter = script.startsWith('#!') ? [] : ['bash', '-e'];
  const argv = ['sh', '-c', run, 'setup', ...interpreter];
  const step = { name: 'setup', argv, stdin: Buffer.from(script), timeoutMs, cwd: '/workspace' };
  requireSuccess('setup', await told(work, step), timeoutMs);
}

/** Keeps packages and set-up for the next sandbox of the same environment, where the provider can. */
async function saveSetup({ deps, session, sandbox, lease, signal }: Work): Promise<void> {
  const environment = cloudEnvironment(session);
  const { provider, ref } = lease;
  if (!hasSetup(environment) || !(await provider.capabilities()).snapshot) return;
  const credentials = await currentCredentials(deps, session.id);
  if (await mayHoldPlaceholders(lease, sandbox, credentials, signal)) {
    deps.logger.warn(
      { sandboxId: sandbox.id },
      'set-up wrote placeholders of its session to files, so it is not saved',
    );
    return;
  }
  const hash = setupHash(session, credentials);
  const place = { hash, provider: environment.provider, owner: deps.sandboxOwner };
  try {
    const saved = await provider.snapshot(ref, `environment-${hash}-${sandbox.id}`, signal);
    const { note } = (await getSandbox(deps.pool, sandbox.id)) ?? sandbox;
    const missing = (note ?? '').split('\n').filter((line) => line.startsWith(NOT_INSTALLED));
    const withNote = missing.length === 0 ? saved : { ...saved, note: missing.join('\n') };
    if (await insertEnvironmentSnapshot(deps.pool, place, { teamId: session.teamId, ref: withNote })) return;
    // Another session of the environment was first, or another attempt of this one.
    const kept = await useEnvironmentSnapshot(deps.pool, place);
    if (kept?.id !== saved.id) await provider.deleteSnapshot(saved, signal);
  } catch (error) {
    if (signal.aborted || isGone(error)) throw error;
    deps.logger.warn(
      { sandboxId: sandbox.id, err: error },
      'set-up could not be saved; the next sandbox makes it anew',
    );
  }
}

async function cloneAll(work: Work): Promise<void> {
  const { deps, session } = work;
  const repositories: EnvironmentRepository[] = cloudEnvironment(session).repositories;
  if (repositories.length === 0) return;
  const credentials = await currentCredentials(deps, session.id);
  const timeoutMs = LIMITS.cloneTimeoutMs;
  for (const [index, repository] of repositories.entries()) {
    const name = `repository.${index + 1}`;
    let argv: string[];
    try {
      argv = cloneCommand(repository, credentialFor(repository, credentials));
    } catch (error) {
      throw error instanceof LonghaulError ? new StepFailed(name, error.message) : error;
    }
    const end = await told(work, { name, argv, timeoutMs });
    requireSuccess(`${name} (${repository.url})`, end, timeoutMs);
  }
}

async function fail(
  deps: ActivityDeps,
  sandbox: SandboxRow,
  failure: { step: string; message: string },
): Promise<void> {
  const { step } = failure;
  const message = failure.message.slice(0, 2_000);
  await withTransaction(deps.pool, async (tx) => {
    await lockSession(tx, sandbox.sessionId);
    if (!(await recordFailure(tx, sandbox.id, { step, message }))) return;
    const payload = { sandbox_id: sandbox.id, step, message };
    await appendEvents(tx, sandbox.sessionId, [
      { type: 'session.sandbox_failed', dedupeKey: `sandbox/${sandbox.id}/failed`, payload },
    ]);
  });
}
