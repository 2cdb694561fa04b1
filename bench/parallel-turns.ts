import { openSession, scriptMessage, type BenchContext, type Measurement, type Row } from './measurement.ts';
import { isTurnEnd, SessionWatch } from './session-watch.ts';
import { quantile } from './stats.ts';

const PARALLEL = 30;
const TARGET_S = 1.5;
/** They open connections and compile code: a stack that runs has that behind it. */
const WARM_ROUNDS = 3;

async function oneTurn({ client }: BenchContext, sessionId: string, watch: SessionWatch): Promise<number> {
  const end = watch.next(isTurnEnd);
  const startedMs = performance.now();
  await client.sessions.send(sessionId, [scriptMessage([{ text: 'one second later', delayMs: 1_000 }])]);
  return ((await end).atMs - startedMs) / 1_000;
}

async function run(context: BenchContext): Promise<Row[]> {
  const rounds = WARM_ROUNDS + (context.quick ? 1 : 5);
  const sessions = await Promise.all(
    Array.from({ length: PARALLEL }, async () => {
      const sessionId = await openSession(context);
      return { sessionId, watch: new SessionWatch(context.client, sessionId) };
    }),
  );
  const turnsS: number[] = [];
  try {
    for (let round = 0; round < rounds; round += 1) {
      const times = await Promise.all(sessions.map(({ sessionId, watch }) => oneTurn(context, sessionId, watch)));
      if (round >= WARM_ROUNDS) turnsS.push(...times);
    }
  } finally {
    for (const { watch } of sessions) watch.close();
  }
  const note = `p99 ${quantile(turnsS, 0.99).toFixed(2)} s, longest ${Math.max(...turnsS).toFixed(2)} s`;
  return [
    {
      name: `${PARALLEL} turns of 1 s at once, p50`,
      value: quantile(turnsS, 0.5),
      unit: 's',
      target: TARGET_S,
      samples: turnsS.length,
      note,
    },
  ];
}

/** Wall time of turns whose model takes one second, thirty at once: from the message to idle. */
export const parallelTurns: Measurement = { name: 'parallel-turns', run };
