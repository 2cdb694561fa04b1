import { readFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { openSession, scriptMessage, type BenchContext, type Measurement, type Row } from './measurement.ts';
import { isToolResult, isToolUse, isTurnEnd, SessionWatch } from './session-watch.ts';
import { median } from './stats.ts';

const TARGET_S = 15;
/** The command is over before anybody could pick it up again, so that only the recovery is measured. */
const COMMAND_S = 2;
const KILL_AFTER_MS = 1_000;
/** A process that lived shorter is started again with a growing pause, which is not what is measured. */
const HEALTHY_MS = 21_000;

interface Recovery {
  seconds: number;
  workerReadySeconds: number;
}

async function once(context: BenchContext): Promise<Recovery> {
  const { client, stack } = context;
  const sessionId = await openSession(context);
  const watch = new SessionWatch(client, sessionId);
  try {
    const warm = watch.next(isTurnEnd);
    await client.sessions.send(sessionId, [scriptMessage([{ tools: [bash('true')] }, { text: 'warm' }])]);
    await warm;
    await delay(HEALTHY_MS);
    const called = watch.next(isToolUse);
    const result = watch.next(isToolResult);
    const end = watch.next(isTurnEnd);
    await client.sessions.send(sessionId, [scriptMessage([{ tools: [bash(`sleep ${COMMAND_S}`)] }, { text: 'back' }])]);
    await called;
    await delay(KILL_AFTER_MS);
    const pid = stack.devJson().pids.worker;
    if (pid === null) throw new Error('the stack runs no worker of its own');
    const killedMs = Date.now();
    const startedMs = performance.now();
    process.kill(pid, 'SIGKILL');
    const { atMs } = await result;
    await end;
    return { seconds: (atMs - startedMs) / 1_000, workerReadySeconds: (readyMs(stack.logs) - killedMs) / 1_000 };
  } finally {
    watch.close();
  }
}

const bash = (command: string): object => ({ name: 'bash', input: { command } });

/** When the worker that runs now said that it is ready. */
function readyMs(logs: string): number {
  const lines = readFileSync(path.join(logs, 'worker.log'), 'utf8').split('\n');
  const line = lines.findLast((text) => text.includes('"msg":"worker ready"'));
  return line === undefined ? NaN : Date.parse((JSON.parse(line) as { time: string }).time);
}

async function run(context: BenchContext): Promise<Row[]> {
  const samples = context.quick ? 1 : 5;
  const seen: Recovery[] = [];
  for (let index = 0; index < samples; index += 1) {
    context.say(`  recovery ${index + 1} of ${samples}`);
    seen.push(await once(context));
  }
  const times = seen.map(({ seconds }) => seconds);
  const ready = median(seen.map(({ workerReadySeconds }) => workerReadySeconds));
  const note = `longest ${Math.max(...times).toFixed(1)} s; the next worker is ready after ${ready.toFixed(1)} s`;
  return [
    {
      name: 'recovery from SIGKILL of the worker, p50',
      value: median(times),
      unit: 's',
      target: TARGET_S,
      samples,
      note,
    },
  ];
}

/** From the death of the worker in the middle of a tool call to that call's result in the log. */
export const recovery: Measurement = { name: 'recovery', run };
