import { createClient } from '../../client/index.ts';
import { LonghaulError } from '../../contracts/error-codes.ts';
import type { SessionTraceResource, TraceCall, TraceEffect, TraceTurn } from '../../contracts/traces.ts';
import type { CliConfig } from '../config.ts';
import { EXIT, print, printJson } from '../output.ts';
import { homePaths, readDevJson } from '../stack/home.ts';

const MAX_PAGES = 1_000;

/** Prints the call tree of a session of the running stack. */
export async function showTrace(config: CliConfig, sessionId: string, options: { json: boolean }): Promise<number> {
  const devJson = readDevJson(homePaths(config.home));
  if (devJson === null) throw new LonghaulError('setup_required', 'no stack runs in this home: longhaul dev --detach');
  const client = createClient({ apiUrl: devJson.apiUrl, apiKey: devJson.apiKey });
  let page: string | null = null;
  for (let pages = 0; pages < MAX_PAGES; pages += 1) {
    const got: SessionTraceResource = await client.sessions.trace(sessionId, page === null ? {} : { page });
    if (options.json) printJson(got);
    else printPage(got, page === null);
    page = got.next_page;
    if (page === null) break;
  }
  return EXIT.ok;
}

function printPage(trace: SessionTraceResource, isFirst: boolean): void {
  if (isFirst) {
    print(`${trace.session_id}  ${trace.agent.name ?? trace.agent.id} v${trace.agent.version}  ${trace.status}`);
    print(`${trace.calls} model calls  ${money(trace.cost_micros)}  trace ${trace.trace_id}`);
  }
  for (const turn of trace.turns) printTurn(turn);
  if (trace.other_calls.length > 0) print('outside of turns');
  for (const call of trace.other_calls) print(`   ${describeCall(call)}`);
  if (trace.other_calls_truncated) print('   … and older ones');
}

function printTurn(turn: TraceTurn): void {
  const waited = turn.waited_ms === 0 ? '' : `, waited ${duration(turn.waited_ms)}`;
  const why = turn.stop_reason === null ? '' : ` (${turn.stop_reason.type})`;
  print(`turn ${turn.turn}  ${turn.state}${why}  ${duration(turn.duration_ms)}${waited}`);
  for (const step of turn.steps) {
    print(`├─ ${step.step}  ${step.call === null ? 'no model call is recorded' : describeCall(step.call)}`);
    for (const effect of step.effects) print(`│  └─ ${describeEffect(effect)}`);
  }
}

function describeCall(call: TraceCall): string {
  const cached = call.cache_read_input_tokens + call.cache_creation_input_tokens;
  const tokens = `${call.input_tokens + cached}→${call.output_tokens} tokens`;
  const first = call.ttft_ms === null ? '' : `, first byte ${duration(call.ttft_ms)}`;
  return [
    `chat ${call.model}`,
    `${duration(call.latency_ms)}${first}`,
    cached === 0 ? tokens : `${tokens} (${call.cache_read_input_tokens} from cache)`,
    money(call.cost_micros),
    ...(call.cache === null ? [] : ['answered from the cache']),
    ...(call.attempts === null ? [] : [`${call.attempts.length} attempts`]),
    ...(call.error === null ? [] : [`failed: ${call.error}`]),
  ].join('  ');
}

function describeEffect(effect: TraceEffect): string {
  const asked = effect.approvals.map(
    ({ state, decision, waited_ms: waitedMs }) => `asked a person: ${decision ?? state} after ${duration(waitedMs)}`,
  );
  return [`${effect.tool}  ${effect.state}`, duration(effect.duration_ms), ...asked].join('  ');
}

function money(costMicros: number | null): string {
  return costMicros === null ? 'no price' : `$${(costMicros / 1_000_000).toFixed(4)}`;
}

function duration(ms: number | null): string {
  if (ms === null) return '–';
  if (ms < 1_000) return `${Math.round(ms)} ms`;
  return ms < 120_000 ? `${(ms / 1_000).toFixed(1)} s` : `${(ms / 60_000).toFixed(1)} min`;
}
