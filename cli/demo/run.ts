import { setTimeout as delay } from 'node:timers/promises';
import { createClient, type LonghaulClient } from '../../client/index.ts';
import type { ApprovalResource } from '../../contracts/approvals.ts';
import { LonghaulError } from '../../contracts/error-codes.ts';
import type { SessionEvent } from '../../contracts/events.ts';
import { LIMITS } from '../../contracts/limits.ts';
import type { DevJson } from '../stack/home.ts';
import type { Facts, Kill } from './checks.ts';
import { isSlowCommand, stopReasonOf } from './events.ts';
import { runGuarded, type GuardedUpstream } from './guarded.ts';
import type { OwnStack } from './own-stack.ts';
import type { Printer } from './printer.ts';
import { agentBody, nextMinute, nightlyMessage, taskMessage } from './story.ts';
import { showEvent } from './timeline.ts';

/** Between the order of the command and the kill: it is well under way then. */
const KILL_AFTER_MS = 1_500;
const SCHEDULE_LEAD_MS = 6_000;
const RUN_POLL_MS = 250;

export interface DemoRun {
  stack: OwnStack;
  devJson: DevJson;
  model: string;
  isScripted: boolean;
  printer: Printer;
  signal: AbortSignal;
  upstream: GuardedUpstream;
  /** Answers the approval: after a moment, or by asking. */
  answer: (approval: ApprovalResource) => Promise<'allow' | 'deny'>;
}

/** Plays the story on the running stack and brings back what there is to check. */
export async function runDemo(run: DemoRun): Promise<Facts> {
  const { devJson, printer } = run;
  const client = createClient({ apiUrl: devJson.apiUrl, apiKey: devJson.apiKey });
  const agent = await client.agents.create(agentBody(run.model));
  const environment = await client.environments.create({ name: 'demo' });
  const place = { agent: agent.id, environment_id: environment.id };
  const schedule = nextMinute(Date.now(), SCHEDULE_LEAD_MS);
  const deployment = await client.deployments.create({
    ...place,
    name: 'Nightly check',
    initial_events: [{ type: 'user.message', content: nightlyMessage(run.isScripted) }],
    schedule: { type: 'cron', expression: schedule.expression, timezone: 'UTC' },
  });
  printer.event('schedule', `"${schedule.expression}" in UTC: fires in ${secondsUntil(schedule.atMs)} s`);
  const session = await client.sessions.create({ ...place, title: 'Longhaul demo' });
  printer.event('session', `${session.id} of agent "${agent.name}" (model ${run.model})`);
  if (devJson.temporalUiUrl !== null) printer.event('', `Temporal UI: ${workflowUrl(devJson, session.id)}`);
  await client.sessions.send(session.id, [{ type: 'user.message', content: taskMessage(run.isScripted) }]);
  const watched = await watch(run, client, session.id);
  // While the clock comes to the full minute.
  const guarding = runGuarded(run, client, run.upstream);
  guarding.catch(() => undefined);
  const deploymentRuns = await scheduledRuns(run, client, { id: deployment.id, atMs: schedule.atMs });
  await client.deployments.archive(deployment.id);
  const scheduledSession = deploymentRuns[0].session_id;
  return {
    ...watched,
    guarded: await guarding,
    isScripted: run.isScripted,
    events: await allEvents(client, session.id),
    session: await client.sessions.get(session.id),
    usage: await client.sessions.usage(session.id),
    approvals: (await client.approvals.list({ session_id: session.id, state: 'all' })).data,
    scriptedCalls: run.isScripted ? await scriptedCalls(devJson, session.id) : undefined,
    scheduledAtMs: schedule.atMs,
    deploymentRuns,
    scheduledUsage: scheduledSession === null ? undefined : await client.sessions.usage(scheduledSession),
    workflowInUi: devJson.temporalUiUrl === null ? undefined : await workflowInUi(devJson, session.id),
  };
}

/** Page of a session's workflow in the Temporal UI. */
export function workflowUrl({ temporalUiUrl, temporalNamespace }: DevJson, sessionId: string): string {
  const workflowId = encodeURIComponent(`session/${sessionId}`);
  return `${temporalUiUrl}/namespaces/${temporalNamespace}/workflows/${workflowId}`;
}

async function watch(
  run: DemoRun,
  client: LonghaulClient,
  sessionId: string,
): Promise<Pick<Facts, 'streamedSeqs' | 'kill' | 'answers'>> {
  const { printer, signal } = run;
  const streamedSeqs: number[] = [];
  const answers: Facts['answers'] = [];
  let killing: Promise<Kill> | undefined;
  let hasAnswered = false;
  for await (const frame of client.sessions.follow(sessionId, { after: 0, signal })) {
    if (!('seq' in frame)) continue;
    const event = frame;
    streamedSeqs.push(event.seq);
    showEvent(printer, event);
    hasAnswered ||= event.type === 'span.model_request_end';
    if (event.type === 'session.error' && !hasAnswered && !run.isScripted) {
      throw new LonghaulError(
        'provider_unavailable',
        `${run.model} does not answer; the demo also runs offline: --model scripted`,
      );
    }
    if (killing === undefined && isSlowCommand(event)) {
      killing = killWorker(run);
      // Awaited below; a failure before that must not count as unhandled.
      killing.catch(() => undefined);
    }
    const stopReason = stopReasonOf(event);
    if (stopReason === undefined) continue;
    if (stopReason !== 'requires_action') {
      return { streamedSeqs, answers, kill: await killing };
    }
    for (const approval of (await client.approvals.list({ session_id: sessionId })).data) {
      const decision = await run.answer(approval);
      answers.push({ approvalId: approval.id, decision });
      await client.approvals.decide(approval.id, { decision });
    }
  }
  signal.throwIfAborted();
  throw new LonghaulError('internal', `the event stream of ${sessionId} ended early`);
}

async function killWorker({ stack, printer, signal }: DemoRun): Promise<Kill> {
  await delay(KILL_AFTER_MS, undefined, { signal });
  const pidBefore = stack.devJson().pids.worker;
  if (pidBefore === null) throw new LonghaulError('internal', 'the stack runs no worker of its own');
  const atMs = Date.now();
  process.kill(pidBefore, 'SIGKILL');
  printer.event('KILL', `worker process ${pidBefore} gets SIGKILL while the command runs`, 'red');
  for (;;) {
    const pidAfter = stack.devJson().pids.worker;
    if (pidAfter !== null && pidAfter !== pidBefore) {
      printer.event('worker', `started again as process ${pidAfter}`, 'green');
      return { pidBefore, pidAfter, atMs };
    }
    await delay(20, undefined, { signal });
  }
}

async function scheduledRuns(
  { printer, signal }: DemoRun,
  client: LonghaulClient,
  deployment: { id: string; atMs: number },
): Promise<Facts['deploymentRuns']> {
  if (deployment.atMs > Date.now()) {
    printer.event('schedule', `waiting for the full minute, ${secondsUntil(deployment.atMs)} s`);
  }
  for (;;) {
    const [found, ...others] = (await client.deploymentRuns.list({ deployment_id: deployment.id })).data;
    if (found !== undefined && found.status !== 'running') {
      printer.event('schedule', `run ${found.id} of session ${found.session_id ?? '(none)'}: ${found.status}`);
      return [found, ...others];
    }
    await delay(RUN_POLL_MS, undefined, { signal });
  }
}

function secondsUntil(atMs: number): number {
  return Math.max(0, Math.round((atMs - Date.now()) / 1_000));
}

async function allEvents(client: LonghaulClient, sessionId: string): Promise<SessionEvent[]> {
  const events: SessionEvent[] = [];
  let page: string | undefined;
  do {
    const got = await client.sessions.events(sessionId, { order: 'asc', limit: LIMITS.pageSizeMax, page });
    events.push(...got.data);
    page = got.next_page ?? undefined;
  } while (page !== undefined);
  return events;
}

/** The scripted model's own count of what it was asked and what it billed. */
async function scriptedCalls(
  { gatewayUrl, apiKey }: DevJson,
  sessionId: string,
): Promise<NonNullable<Facts['scriptedCalls']>> {
  const response = await fetch(`${gatewayUrl}/scripted/calls?session=${sessionId}`, {
    headers: { 'x-api-key': apiKey },
    signal: AbortSignal.timeout(10_000),
  });
  return ((await response.json()) as { data: NonNullable<Facts['scriptedCalls']> }).data;
}

async function workflowInUi(devJson: DevJson, sessionId: string): Promise<boolean> {
  const { temporalUiUrl, temporalNamespace } = devJson;
  const workflowId = encodeURIComponent(`session/${sessionId}`);
  const page = await fetch(workflowUrl(devJson, sessionId), { signal: AbortSignal.timeout(10_000) });
  const api = await fetch(`${temporalUiUrl}/api/v1/namespaces/${temporalNamespace}/workflows/${workflowId}`, {
    signal: AbortSignal.timeout(10_000),
  });
  return page.ok && api.ok;
}
