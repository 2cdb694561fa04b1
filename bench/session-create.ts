import { setTimeout as delay } from 'node:timers/promises';
import { Agent, request } from 'undici';
import type { BenchContext, Measurement, Row } from './measurement.ts';
import { quantile } from './stats.ts';

const TARGET_MS = 15;
const WARM = 20;
/** Ten a second: between two, the workflow of the one before has started, so the request alone is measured. */
const PACE_MS = 100;

/** One after the other on one connection. */
async function creates(context: BenchContext, samples: number, pauseMs: number): Promise<number[]> {
  const { devJson, agentId, environmentId } = context;
  const dispatcher = new Agent({ connections: 1 });
  const timesMs: number[] = [];
  const body = JSON.stringify({ agent: agentId, environment_id: environmentId });
  const headers = { 'x-api-key': devJson.apiKey, 'content-type': 'application/json' };
  for (let index = -WARM; index < samples; index += 1) {
    const startedMs = performance.now();
    const response = await request(`${devJson.apiUrl}/v1/sessions`, { method: 'POST', headers, body, dispatcher });
    await response.body.text();
    if (response.statusCode !== 200) throw new Error(`session create answered ${response.statusCode}`);
    if (index >= 0) timesMs.push(performance.now() - startedMs);
    if (pauseMs > 0) await delay(pauseMs);
  }
  await dispatcher.close();
  return timesMs;
}

async function run(context: BenchContext): Promise<Row[]> {
  const samples = context.quick ? 30 : 200;
  const paced = await creates(context, samples, PACE_MS);
  const unpaced = await creates(context, samples, 0);
  const note = `back to back, where starting their workflows takes the processors: p50 ${quantile(unpaced, 0.5).toFixed(1)} ms, p99 ${quantile(unpaced, 0.99).toFixed(1)} ms`;
  return [
    { name: 'session create p50', value: quantile(paced, 0.5), unit: 'ms', target: TARGET_MS, samples },
    { name: 'session create p99', value: quantile(paced, 0.99), unit: 'ms', samples, note },
  ];
}

/** Time of POST /v1/sessions. */
export const sessionCreate: Measurement = { name: 'session-create', run };
