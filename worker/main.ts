import { fileURLToPath } from 'node:url';
import { Client, Connection } from '@temporalio/client';
import { DefaultLogger, makeTelemetryFilterString, NativeConnection, Runtime, Worker } from '@temporalio/worker';
import { createActivities } from '../activities/index.ts';
import { createPool } from '../db/pool.ts';
import type { Logger } from '../telemetry/logger.ts';
import { createLogger } from '../telemetry/logger.ts';
import { createTracing } from '../telemetry/tracing.ts';
import type { WorkerConfig } from './config.ts';
import { readConfig } from './config.ts';
import { createDeps } from './deps.ts';
import { traceActivity } from './tracing/interceptor.ts';
import { TurnTracer } from './tracing/turn-tracer.ts';
import { ensureMaintenanceSchedule, registerSearchAttributes } from './temporal-setup.ts';

/** Time a worker gets to hand its activities back before it goes down. */
const SHUTDOWN_GRACE_MS = 8_000;
/** Bounds memory with many idle sessions: those beyond it are replayed from history when they wake. */
const CACHED_WORKFLOWS = 200;

const config = readConfig();
const logger = createLogger('worker', config.logLevel);

function installRuntime(): void {
  const forward = new DefaultLogger('WARN', ({ level, message, meta }) => {
    const line = { temporal: true, ...meta };
    if (level === 'ERROR') logger.error(line, message);
    else logger.warn(line, message);
  });
  Runtime.install({
    logger: forward,
    shutdownSignals: ['SIGINT', 'SIGTERM'],
    telemetryOptions: {
      logging: { filter: makeTelemetryFilterString({ core: 'ERROR', other: 'ERROR' }), forward: {} },
    },
  });
}

async function createWorker(
  settings: WorkerConfig,
  log: Logger,
): Promise<{ worker: Worker; close: () => Promise<void> }> {
  const pool = createPool({ databaseUrl: settings.databaseUrl, applicationName: 'longhaul-worker', max: 20 });
  const [native, connection] = await Promise.all([
    NativeConnection.connect(settings.temporal.connection),
    Connection.connect(settings.temporal.connection),
  ]);
  const client = new Client({ connection, namespace: settings.temporal.namespace });
  const added = await registerSearchAttributes(client, settings.temporal.namespace);
  if (added.length > 0) log.info({ added }, 'search attributes registered');
  const tracing = await createTracing('worker', log);
  const tracer = new TurnTracer(pool, tracing, log);
  const worker = await Worker.create({
    connection: native,
    namespace: settings.temporal.namespace,
    taskQueue: settings.taskQueue,
    workflowBundle: { codePath: fileURLToPath(new URL('../workflows/bundle.cjs', import.meta.url)) },
    activities: createActivities(createDeps(settings, { pool, temporal: client, logger: log, tracing })),
    interceptors: { activity: tracing.isOn ? [traceActivity(tracer)] : [] },
    maxConcurrentActivityTaskExecutions: settings.maxActivities,
    maxCachedWorkflows: CACHED_WORKFLOWS,
    // After a worker dies its sessions wait this long for it before any worker may take them.
    stickyQueueScheduleToStartTimeout: '2s',
    // Tasks that a frozen or cut off worker was given are lost until their timeout, one for each open poll.
    workflowTaskPollerBehavior: { type: 'autoscaling', minimum: 2, initial: 2, maximum: 20 },
    activityTaskPollerBehavior: { type: 'autoscaling', minimum: 1, initial: 2, maximum: 20 },
    maxHeartbeatThrottleInterval: '1s',
    defaultHeartbeatThrottleInterval: '1s',
    shutdownGraceTime: SHUTDOWN_GRACE_MS,
    shutdownForceTime: SHUTDOWN_GRACE_MS + 5_000,
    ...(settings.buildId === undefined
      ? {}
      : {
          workerDeploymentOptions: {
            version: { deploymentName: 'longhaul', buildId: settings.buildId },
            useWorkerVersioning: true,
            defaultVersioningBehavior: 'PINNED',
          },
        }),
  });
  await ensureMaintenanceSchedule(client, settings.taskQueue, settings.maintenanceEveryMs);
  return {
    worker,
    async close() {
      await tracer.drain();
      await Promise.allSettled([native.close(), connection.close(), pool.end(), tracing.close()]);
    },
  };
}

async function main(): Promise<void> {
  installRuntime();
  const { worker, close } = await createWorker(config, logger);
  const running = worker.run();
  logger.info({ taskQueue: config.taskQueue }, 'worker ready');
  process.send?.({ type: 'ready' });
  try {
    await running;
  } finally {
    await close();
  }
  logger.info('worker stopped');
}

process.on('uncaughtException', (error) => {
  logger.fatal({ err: error }, 'uncaught exception');
  process.exit(1);
});
main().then(
  () => process.exit(0),
  (error: unknown) => {
    logger.fatal({ err: error }, 'worker failed');
    process.exit(1);
  },
);
