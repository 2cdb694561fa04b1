import { openSession, scriptMessage, type BenchContext, type Measurement, type Row } from './measurement.ts';
import { settled } from './process-memory.ts';
import { isTurnEnd, SessionWatch } from './session-watch.ts';

const TARGET_MB = 350;
const SETTLE_LIMIT_MS = 30_000;
const AT_ONCE = 10;

async function idle({ stack }: BenchContext): Promise<Row[]> {
  const { api, worker, temporal, postgres } = await settled(stack.devJson().pids, SETTLE_LIMIT_MS);
  const note = `PSS api+gateway ${api.pss.toFixed(0)}, worker ${worker.pss.toFixed(0)}; RSS ${(api.rss + worker.rss).toFixed(0)}; beside them Temporal ${temporal.pss.toFixed(0)}, Postgres ${postgres.pss.toFixed(0)}`;
  const value = api.rss + worker.rss;
  return [{ name: 'idle memory of api + worker + gateway', value, unit: 'MB', target: TARGET_MB, samples: 1, note }];
}

async function oneFinishedTurn(context: BenchContext): Promise<void> {
  const sessionId = await openSession(context);
  const watch = new SessionWatch(context.client, sessionId);
  try {
    const end = watch.next(isTurnEnd);
    await context.client.sessions.send(sessionId, [scriptMessage([{ text: 'done' }])]);
    await end;
  } finally {
    watch.close();
  }
}

async function finishTurns(context: BenchContext, sessions: number): Promise<void> {
  let left = sessions;
  const work = async (): Promise<void> => {
    while (left > 0) {
      left -= 1;
      await oneFinishedTurn(context);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
}

async function perSession(context: BenchContext): Promise<Row[]> {
  const sessions = context.quick ? 50 : 500;
  // Code that was not compiled yet and pools that were not full must not count as memory of sessions.
  await finishTurns(context, 50);
  const before = await settled(context.stack.devJson().pids, SETTLE_LIMIT_MS);
  await finishTurns(context, sessions);
  const after = await settled(context.stack.devJson().pids, SETTLE_LIMIT_MS);
  const grownKb = (role: keyof typeof after): number => ((after[role].pss - before[role].pss) * 1_024) / sessions;
  const note = (['api', 'worker', 'temporal', 'postgres'] as const)
    .map((role) => `${role} ${grownKb(role).toFixed(1)}`)
    .join(', ');
  const value = grownKb('api') + grownKb('worker') + grownKb('temporal');
  return [{ name: 'memory per idle session', value, unit: 'KB', samples: sessions, note: `KB of PSS: ${note}` }];
}

/** What the stack takes when nothing happens. Goes first: later nothing is idle any more. */
export const idleMemory: Measurement = { name: 'idle-memory', run: idle };

/** What api, worker and Temporal hold for a session that had one turn and waits. */
export const sessionMemory: Measurement = { name: 'session-memory', run: perSession };
