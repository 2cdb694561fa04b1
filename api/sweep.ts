import { setTimeout as sleep } from 'node:timers/promises';
import { isOutage } from '../db/pool.ts';
import { listOpenRuns } from '../db/queries/deployment-runs.ts';
import { listUnsynced } from '../db/queries/deployments.ts';
import { deleteOldResponses } from '../db/queries/idempotency.ts';
import { listIdle, listNotStarted, listQuiet, listUndeliveredSessions } from '../db/queries/sessions.ts';
import type { Services } from './services.ts';

const EVERY_MS = 1_000;
/** Younger rows are still in the hands of the request that wrote them. */
const GRACE_MS = 2_000;
const BATCH = 100;
const PARALLEL = 16;
/** Each holds a connection of the pool while it waits for Temporal. */
const PARALLEL_SYNCS = 3;
const PARALLEL_CHECKS = 3;
const CHECK_EVERY = 15;
const FAILURES = 3;
const QUIET_MS = 60_000;
const CLEAN_EVERY = 600;

/** Delivers what a crash or an outage left between commit and workflow, until `signal` aborts. */
export async function runSweep(services: Services, signal: AbortSignal): Promise<void> {
  const walk: Walk = {};
  for (let round = 0; !signal.aborted; round += 1) {
    try {
      await sweepOnce(services);
      if (round % CHECK_EVERY === 0) {
        await checkQuiet(services);
        await checkNext(services, walk);
      }
      if (round % CLEAN_EVERY === 0) await deleteOldResponses(services.pool, 1_000);
    } catch (error) {
      if (isOutage(error)) services.logger.warn({ err: error }, 'sweep: the database is away');
      else services.logger.error({ err: error }, 'sweep failed');
    }
    try {
      await sleep(EVERY_MS, undefined, { signal });
    } catch {
      return;
    }
  }
}

/** One round: undelivered inputs, sessions without a workflow, deployments whose schedule is behind. */
export async function sweepOnce(services: Services, graceMs: number = GRACE_MS): Promise<void> {
  const { pool, delivery, schedules } = services;
  const undelivered = await listUndeliveredSessions(pool, graceMs, BATCH);
  const notStarted = await listNotStarted(pool, graceMs, BATCH);
  const sessionIds = [...new Set([...undelivered, ...notStarted])];
  services.metrics.undelivered.set(sessionIds.length);
  await inParallel(PARALLEL, sessionIds, (sessionId) => delivery.kick(sessionId));
  await untilFailures(PARALLEL_SYNCS, await listUnsynced(pool, graceMs, BATCH), (id) => schedules.sync(id));
}

/** Sessions that should be at work but are silent: a workflow that was ended from outside tells nobody. */
export async function checkQuiet(services: Services, quietMs: number = QUIET_MS): Promise<void> {
  const sessionIds = await listQuiet(services.pool, quietMs, BATCH);
  await untilFailures(PARALLEL_CHECKS, sessionIds, (sessionId) => services.delivery.check(sessionId));
}

/** How far the walks through all idle sessions and all open runs have come; each begins again after its end. */
export interface Walk {
  session?: string | undefined;
  run?: string | undefined;
}

/**
 * The next page of idle sessions and of open deployment runs, for the same reason. There may be very many, and nothing is
 * late with them: a page at a time, so that all of them together cost Temporal a few calls a second.
 */
export async function checkNext(
  { pool, delivery }: Services,
  walk: Walk,
  { quietMs = QUIET_MS, limit = BATCH }: { quietMs?: number; limit?: number } = {},
): Promise<void> {
  const runs = await listOpenRuns(pool, { after: walk.run ?? '', olderThanMs: quietMs, limit });
  walk.run = runs.length < limit ? undefined : runs.at(-1)?.id;
  await untilFailures(PARALLEL_CHECKS, runs, (run) => delivery.checkRun(run));
  const sessionIds = await listIdle(pool, { after: walk.session ?? '', quietMs, limit });
  walk.session = sessionIds.length < limit ? undefined : sessionIds.at(-1);
  await untilFailures(PARALLEL_CHECKS, sessionIds, (sessionId) => delivery.check(sessionId));
}

/**
 * Gives up the round after a few failures: with Temporal away each item would wait in vain, and the sweep with it. One that
 * always fails does not keep the others from their turn.
 */
async function untilFailures<T>(parallel: number, items: T[], work: (item: T) => Promise<boolean>): Promise<void> {
  let failures = 0;
  await inParallel(parallel, items, async (item) => {
    if (failures < FAILURES && !(await work(item))) failures += 1;
  });
}

async function inParallel<T>(parallel: number, items: T[], work: (item: T) => Promise<void>): Promise<void> {
  const queue = [...items];
  const worker = async (): Promise<void> => {
    for (let item = queue.shift(); item !== undefined; item = queue.shift()) await work(item);
  };
  await Promise.all(Array.from({ length: Math.min(parallel, items.length) }, worker));
}
