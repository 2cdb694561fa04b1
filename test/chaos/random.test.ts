import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findViolations } from '../support/invariants.ts';
import { recorded } from '../support/recorder.ts';
import { bash, scriptMessage, SessionDriver, type Frame, type ScriptStep } from '../support/session-driver.ts';
import { eventually, startStack, type TestStack } from '../support/stack.ts';

const KILLS = 25;
const SESSIONS = 8;
const KILLING_MS = 150_000;
const REST_MS = 240_000;
/** A process gets this long before it may be killed again: a stack that never comes up shows nothing. */
const LIFE_MS = 4_000;

const ROLES = ['worker', 'worker', 'worker', 'api', 'api', 'postgres', 'temporal', 'sandbox', 'sandbox'] as const;
type Victim = (typeof ROLES)[number];

/** Set LONGHAUL_CHAOS_SEED to play a run again; processes keep their own time, so it is a near repeat. */
const SEED = Number(process.env['LONGHAUL_CHAOS_SEED'] ?? Math.floor(Math.random() * 2 ** 31));

/** mulberry32: small, seeded, good enough to choose victims. */
function randomOf(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

function pick<T>(random: () => number, items: readonly [T, ...T[]]): T {
  return items[Math.floor(random() * items.length)] ?? items[0];
}

/** A turn of a few steps of every kind; each command has a key of its own. */
function randomScript(random: () => number, name: string): ScriptStep[] {
  const steps = Array.from({ length: 1 + Math.floor(random() * 4) }, (_, index): ScriptStep => {
    const key = `${name}s${index}`;
    const seconds = Math.round(random() * 20) / 10;
    return pick<ScriptStep>(random, [
      { tools: [bash(recorded(key, seconds))] },
      { tools: [bash(recorded(`${key}a`, seconds)), bash(recorded(`${key}b`))], text: 'two', chunkMs: 20 },
      { tools: [{ name: 'write', input: { file_path: `/workspace/${key}`, content: key } }] },
      { tools: [{ name: 'grep', input: { pattern: 'start', path: '/workspace' } }], delayMs: 300 },
      { tools: [bash(recorded(key))], text: 'thinking aloud', chunks: 20, chunkMs: 60 },
      { tools: [bash(recorded(key))], error: { status: 529, type: 'overloaded_error', times: 2 } },
    ]);
  });
  return [...steps, { text: 'over', chunks: 5, chunkMs: 30 }];
}

async function moment(ms: number): Promise<void> {
  const atMs = Date.now() + ms;
  await eventually('the moment has come', () => Date.now() >= atMs, ms + 10_000);
}

describe(`random kills, seed ${SEED}`, () => {
  let stack: TestStack;
  let driver: SessionDriver;
  beforeAll(async () => {
    stack = await startStack();
    driver = new SessionDriver(stack);
  });
  afterAll(async () => {
    await driver.close();
    await stack.stop();
  });

  it('leave no invariant broken', { timeout: KILLING_MS * 2 + REST_MS + 60_000 }, async () => {
    const random = randomOf(SEED);
    const sessions: string[] = [];
    for (let index = 0; index < SESSIONS; index += 1) {
      const policy = index % 4 === 3 ? 'always_ask' : 'always_allow';
      sessions.push(await driver.open(randomScript(random, `c${index}t0`), { policy }));
    }
    const accepted: string[] = [];
    const frames: Frame[] = [];
    const state = { killing: true, over: false };
    const rest = new AbortController();
    const kills: Victim[] = [];
    const whole = async (): Promise<void> => {
      const clients = sessions.map((id, index) => {
        const own = { id, name: `c${index}`, random: randomOf(SEED + 2 + index) };
        return keepTalking({ ...own, accepted, isOver: () => !state.killing });
      });
      const killer = kill(random, sessions, kills).finally(() => (state.killing = false));
      await Promise.all([killer, ...clients]);
      await driver.quiet(sessions, REST_MS);
    };
    await Promise.all([
      whole().finally(() => {
        state.over = true;
        rest.abort();
      }),
      keepWatching(sessions[0] ?? '', frames, rest.signal),
      keepDeciding(randomOf(SEED + 1), sessions, () => state.over),
    ]);

    const story = `seed ${SEED}: ${kills.length} kills (${kills.join(' ')})`;
    expect(kills.length, story).toBeGreaterThanOrEqual(KILLS);
    expect(accepted.length, `${story}: the sessions went on meanwhile`).toBeGreaterThan(0);
    const { query, recorder } = driver;
    const temporal = await driver.temporal();
    // The gateway lives in the api; one that loses Postgres as it is billed may not know that it was.
    const gatewayKills = kills.filter((victim) => victim === 'api' || victim === 'postgres').length;
    const found = await Promise.all(
      sessions.map((id) => findViolations(query, id, { recorder, temporal, gatewayKills })),
    );
    expect(found.flat(), story).toEqual([]);
    const kept = await driver.query<{ n: number }>(
      'SELECT count(*)::int AS n FROM inputs WHERE event_id = ANY($1) AND ended_at IS NOT NULL',
      [accepted],
    );
    expect(kept, story).toEqual([{ n: new Set(accepted).size }]);
    const log = await driver.query<{ seq: string }>('SELECT seq FROM events WHERE session_id = $1 ORDER BY seq', [
      sessions[0],
    ]);
    expect(
      frames.map(({ id }) => id),
      story,
    ).toEqual(log.map(({ seq }) => Number(seq)));
    process.stdout.write(`${story}; ${accepted.length} inputs\n`);
  });

  async function kill(random: () => number, sessions: string[], kills: Victim[]): Promise<void> {
    const deadlineMs = Date.now() + KILLING_MS;
    const bornMs = new Map<number, number>();
    while (kills.length < KILLS && Date.now() < deadlineMs) {
      await moment(500 + random() * 2_500);
      const pids = stack.pids();
      for (const pid of Object.values(pids)) if (pid !== null && !bornMs.has(pid)) bornMs.set(pid, Date.now());
      const victim = pick<Victim>(random, ROLES);
      if (victim === 'sandbox') {
        if (await killSandbox(random, sessions)) kills.push(victim);
        continue;
      }
      if (Date.now() - (bornMs.get(pids[victim] ?? 0) ?? 0) < LIFE_MS) continue;
      if (driver.tryKill(victim)) kills.push(victim);
    }
  }

  /** One that lives, if any does. */
  async function killSandbox(random: () => number, sessions: string[]): Promise<boolean> {
    const holders = await Promise.all(sessions.map((session) => driver.recorder.processesOf(session)));
    const living = holders.flatMap(([holder]) => (holder === undefined ? [] : [holder]));
    const holder = living[Math.floor(random() * living.length)];
    if (holder === undefined) return false;
    process.kill(holder, 'SIGKILL');
    return true;
  }

  interface Talk {
    id: string;
    name: string;
    random: () => number;
    accepted: string[];
    isOver: () => boolean;
  }

  /** A client that sends the next message when the turn has ended, and sometimes interrupts. */
  async function keepTalking({ id, name, random, accepted, isOver }: Talk): Promise<void> {
    const send = async (event: object): Promise<void> => {
      const { status, body } = await driver.send(id, event);
      if (status !== 200) throw new Error(`${id}: ${status} ${JSON.stringify(body)}`);
      accepted.push(...(body['data'] as { id: string }[]).map((row) => row.id));
    };
    for (let turn = 1; !isOver(); turn += 1) {
      const ended = `(SELECT count(*) FROM turns t WHERE t.session_id = s.id AND t.state <> 'running') >= ${turn}`;
      if (random() < 0.15) {
        await moment(random() * 2_000);
        await send({ type: 'user.interrupt' });
      }
      await driver.untilSql(`turn ${turn} ended`, id, ended, KILLING_MS);
      if (!isOver()) await send(scriptMessage(randomScript(random, `${name}t${turn}`)));
    }
  }

  /** A person who answers every question sooner or later. */
  async function keepDeciding(random: () => number, sessions: string[], isOver: () => boolean): Promise<void> {
    while (!isOver()) {
      await moment(300);
      const pending = await driver.query<{ id: string; kind: string }>(
        `SELECT id, kind FROM approvals WHERE session_id = ANY($1) AND state = 'pending'`,
        [sessions],
      );
      for (const { id, kind } of pending) {
        const decision =
          kind === 'effect' ? pick(random, ['allow', 'allow', 'deny']) : pick(random, ['retry', 'done', 'skip']);
        const { status } = await driver.decide(id, decision);
        // 409: an interrupt withdrew it meanwhile.
        if (status !== 200 && status !== 409) throw new Error(`deciding ${id}: ${status}`);
      }
    }
  }

  /** A viewer who comes back after every lost connection, until `rest` and then to the end of the log. */
  async function keepWatching(session: string, frames: Frame[], rest: AbortSignal): Promise<void> {
    while (!rest.aborted) {
      // Node's fetch may miss that a server died: a viewer who hears nothing, not even pings, asks again.
      await driver.watch(session, frames, () => false, AbortSignal.any([rest, AbortSignal.timeout(20_000)]));
      await moment(50);
    }
    const [row] = await driver.query<{ last: string }>('SELECT last_seq AS last FROM sessions WHERE id = $1', [
      session,
    ]);
    const isAtEnd = (): boolean => frames.at(-1)?.id === Number(row?.last);
    while (!isAtEnd()) await driver.watch(session, frames, isAtEnd);
  }
});
