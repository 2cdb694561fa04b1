import type { ApprovalResource } from '../../contracts/approvals.ts';
import type { DeploymentRunResource } from '../../contracts/deployments.ts';
import type { SessionEvent } from '../../contracts/events.ts';
import type { SessionResource } from '../../contracts/sessions.ts';
import { isSlowCommand, stopReasonOf, textOf } from './events.ts';
import { guardedClaim, type Guarded } from './guarded.ts';
import { dollars } from './printer.ts';
import { ALL_PASSED, SCRIPTED_STEPS } from './story.ts';

/** The death of the worker. */
export interface Kill {
  pidBefore: number;
  pidAfter: number;
  atMs: number;
}

interface Usage {
  total: { cost_micros: number | null };
  models: { calls: number; cost_micros: number | null }[];
}

/** Everything the run brought back. */
export interface Facts {
  isScripted: boolean;
  session: SessionResource;
  events: SessionEvent[];
  /** Seqs in the order the live stream showed them. */
  streamedSeqs: number[];
  /** Absent when the slow command never came (a real model may leave it out). */
  kill: Kill | undefined;
  answers: { approvalId: string; decision: 'allow' | 'deny' }[];
  approvals: ApprovalResource[];
  usage: Usage;
  scriptedCalls: { step: number; asked: number; billed: number }[] | undefined;
  scheduledAtMs: number;
  /** Every firing of the deployment; the first has ended. */
  deploymentRuns: [DeploymentRunResource, ...DeploymentRunResource[]];
  scheduledUsage: Usage | undefined;
  workflowInUi: boolean | undefined;
  guarded: Guarded;
}

/** One claim with its measured value; `left_out` where a real model or a denial took away what it needs. */
export interface Check {
  state: 'ok' | 'failed' | 'left_out';
  text: string;
}

const RECOVERY_LIMIT_MS = 15_000;

const check = (ok: boolean, text: string): Check => ({ state: ok ? 'ok' : 'failed', text });
const secs = (ms: number): string => (Number.isNaN(ms) ? 'an unknown time' : `${(ms / 1_000).toFixed(1)} s`);
const timeOf = (event: SessionEvent): number => Date.parse(event.created_at);

/** Every claim of the demo, checked. */
export function checkAll(facts: Facts): Check[] {
  const ui = facts.workflowInUi === undefined ? [] : [check(facts.workflowInUi, 'the Temporal UI shows its workflow')];
  return [
    ...checkCrash(facts),
    checkTurn(facts),
    checkLog(facts),
    checkBilling(facts),
    checkApproval(facts),
    checkTests(facts),
    checkSchedule(facts),
    checkCost(facts),
    checkGuarded(facts),
    ...ui,
  ];
}

function checkGuarded({ guarded }: Facts): Check {
  const claim = guardedClaim(guarded);
  if (claim !== null) return check(claim.ok, claim.text);
  return { state: 'left_out', text: 'a credential that a command cannot see: this machine has no curl' };
}

/** Times in the journal as the last tool result shows it. */
function journal(events: SessionEvent[]): { starts: number[]; ends: number[] } {
  const results = events.filter((event) => event.type === 'agent.tool_result').map(textOf);
  const shown = results.findLast((text) => /start \d{13}/.test(text)) ?? '';
  const times = (word: string): number[] =>
    Array.from(shown.matchAll(new RegExp(`${word} (\\d{13})`, 'g')), (match) => Number(match[1]));
  return { starts: times('start'), ends: times('end') };
}

function checkCrash({ kill, events, isScripted }: Facts): Check[] {
  if (kill === undefined) {
    const text = 'the worker was killed in the middle of a tool call: the model never ran that command';
    return [{ state: isScripted ? 'failed' : 'left_out', text }];
  }
  const { starts, ends } = journal(events);
  const [start = NaN] = starts;
  const [end = NaN] = ends;
  const ordered = events.filter(isSlowCommand).length;
  const afterMs = (type: string): number => {
    const found = events.find((event) => event.type === type && timeOf(event) > kill.atMs);
    return found === undefined ? NaN : timeOf(found) - kill.atMs;
  };
  const nextStepMs = afterMs('span.model_request_start');
  return [
    check(
      kill.pidBefore !== kill.pidAfter && start <= kill.atMs && kill.atMs <= end,
      `the worker died by SIGKILL ${secs(kill.atMs - start)} after the command's start and ${secs(end - kill.atMs)} before its end (pid ${kill.pidBefore} → ${kill.pidAfter})`,
    ),
    check(
      starts.length === ordered && ends.length === ordered,
      `the command ran exactly once: ${starts.length} start, ${ends.length} end in its journal (ordered ${ordered}×)`,
    ),
    check(
      nextStepMs <= RECOVERY_LIMIT_MS,
      `the session carried on by itself: the result ${secs(afterMs('agent.tool_result'))}, the next model step ${secs(nextStepMs)} after the kill (limit ${secs(RECOVERY_LIMIT_MS)}; the command needed ${secs(end - kill.atMs)} of it)`,
    ),
  ];
}

function checkTurn({ events, answers }: Facts): Check {
  const inputs = events.filter((event) => event.type.startsWith('user.')).length;
  const last = events.findLast((event) => stopReasonOf(event) !== undefined);
  const reason = last === undefined ? 'nothing' : stopReasonOf(last);
  return check(
    reason === 'end_turn' && inputs === 1 + answers.length,
    `the turn ended by itself (${reason}); all it got from people: 1 task, ${answers.length} approval (${inputs} inputs)`,
  );
}

function checkLog({ events, streamedSeqs }: Facts): Check {
  const gapFree = events.every((event, index) => event.seq === index + 1);
  const streamed = streamedSeqs.every((seq, index) => seq === index + 1) && streamedSeqs.length === events.length;
  return check(
    gapFree && streamed,
    `the event log has no gap (seq 1 to ${events.at(-1)?.seq ?? 0}) and the live stream showed each of the ${streamedSeqs.length} once, in order`,
  );
}

function checkBilling({ scriptedCalls, usage, events }: Facts): Check {
  const steps = events.filter((event) => event.type === 'span.model_request_end').length;
  const calls = usage.models.reduce((sum, model) => sum + model.calls, 0);
  if (scriptedCalls === undefined) {
    const text = `${steps} model steps, ${calls} in the ledger (a real model: its own count is not readable)`;
    return check(calls === steps, text);
  }
  const billed = scriptedCalls.map((call) => call.billed);
  return check(
    billed.length === SCRIPTED_STEPS && billed.every((count) => count === 1) && calls === billed.length,
    `each of the ${billed.length} model steps was billed once (${billed.join(', ')}; ${calls} calls in the ledger)`,
  );
}

function checkApproval({ answers, approvals, isScripted }: Facts): Check {
  const [first] = approvals;
  if (first === undefined) {
    const text = 'an approval was asked for and consumed: the model used no tool that asks';
    return { state: isScripted ? 'failed' : 'left_out', text };
  }
  const asAnswered = approvals.every((approval) => {
    const answer = answers.find(({ approvalId }) => approvalId === approval.id);
    const expected = answer?.decision === 'allow' ? 'consumed' : 'denied';
    return approval.state === expected && approval.decided_by !== null && /^[0-9a-f]{64}$/.test(approval.digest);
  });
  const how = first.consumed_at === null ? first.state : `${first.decision}, consumed once by the start of the call`;
  return check(
    asAnswered && (!isScripted || approvals.length === 1),
    `${approvals.length} approval: ${how}; by ${first.decided_by}, bound to sha256 ${first.digest.slice(0, 12)}…`,
  );
}

function checkTests({ events, answers, isScripted }: Facts): Check {
  const results = events.filter((event) => event.type === 'agent.tool_result');
  const passed = results.findLast((event) => ALL_PASSED.test(textOf(event)));
  const failed = results.find((event) => /\d+ of \d+ tests failed/.test(textOf(event)));
  if (answers.some(({ decision }) => decision === 'deny')) {
    return { state: 'left_out', text: 'the program passes its test: you denied the fix' };
  }
  const before =
    failed === undefined ? '' : ` (before the fix: ${/\d+ of \d+ tests failed/.exec(textOf(failed))?.[0]})`;
  const ok = passed !== undefined && (!isScripted || failed !== undefined);
  const shown = passed === undefined ? 'not passed' : ALL_PASSED.exec(textOf(passed))?.[0];
  return check(ok, `the program passes its test: ${shown}${before}`);
}

function checkSchedule({ deploymentRuns, scheduledAtMs }: Facts): Check {
  const [deploymentRun] = deploymentRuns;
  const lateMs = Date.parse(deploymentRun.created_at) - scheduledAtMs;
  const { type } = deploymentRun.trigger_context;
  return check(
    deploymentRuns.length === 1 && deploymentRun.status === 'succeeded' && type === 'schedule' && lateMs >= 0,
    `the schedule started ${deploymentRuns.length} session: ${deploymentRun.status}, trigger ${type}, ${secs(lateMs)} after its minute`,
  );
}

function checkCost({ usage, session, scheduledUsage }: Facts): Check {
  const sum = usage.models.reduce<number | null>(
    (total, { cost_micros: cost }) => (total === null || cost === null ? null : total + cost),
    0,
  );
  const total = usage.total.cost_micros;
  const both = total === null || scheduledUsage === undefined ? null : total + (scheduledUsage.total.cost_micros ?? 0);
  return check(
    total !== null && total > 0 && total === sum && total === session.usage.cost_micros,
    `cost of the session ${dollars(total)} = sum over models ${dollars(sum)} = on the session itself; with the scheduled one ${dollars(both)}`,
  );
}
