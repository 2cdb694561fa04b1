import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { bundleWorkflowCode, DefaultLogger, NativeConnection, Runtime, Worker } from '@temporalio/worker';
import { createActivities } from '../../activities/index.ts';
import type { ActivityDeps } from '../../activities/deps.ts';
import { createLogger } from '../../telemetry/logger.ts';
import { NO_TRACING } from '../../telemetry/tracing.ts';
import { createDeps } from '../../worker/deps.ts';
import { registerSearchAttributes } from '../../worker/temporal-setup.ts';
import type { TestApi } from '../api/support.ts';
import { startGateway, type RunningGateway } from '../gateway/support.ts';
import { temporalAddress } from './temporal.ts';

const silent = (): undefined => undefined;
const SILENT = { log: silent, trace: silent, debug: silent, info: silent, warn: silent, error: silent };

let bundle: Promise<{ code: string }> | undefined;

export interface WorkerBed {
  deps: ActivityDeps;
  gateway: RunningGateway;
  /** Begins to poll the api's task queue. */
  start(): Promise<void>;
  /** Ends the worker in order; from then on nobody polls. */
  stop(): Promise<void>;
  close(): Promise<void>;
}

/** A real worker in this process, with a gateway of its own, for the sessions of `api`; started and stopped at will. */
export async function workerBed(api: TestApi): Promise<WorkerBed> {
  Runtime.install({ logger: new DefaultLogger('ERROR', () => undefined) });
  bundle ??= bundleWorkflowCode({
    workflowsPath: fileURLToPath(new URL('../../workflows/index.ts', import.meta.url)),
    logger: SILENT,
  });
  const { client } = api.services.temporal;
  await registerSearchAttributes(client, 'default');
  const gateway = await startGateway(api.pool);
  const home = mkdtempSync(path.join(os.tmpdir(), 'longhaul-worker-'));
  const deps = createDeps(
    {
      databaseUrl: api.databaseUrl,
      temporal: api.services.config.temporal,
      gatewayUrl: gateway.url,
      apiUrl: gateway.url,
      harnessHoldMs: 60_000,
      home,
      sandboxRoot: path.join(home, 'sandboxes'),
      sandboxOwner: home,
      taskQueue: api.taskQueue,
      logLevel: 'silent',
      buildId: undefined,
      maxActivities: 20,
      maintenanceEveryMs: 3_600_000,
      rootfsDir: undefined,
      egress: null,
      trustBundleFile: path.join(home, 'trust-bundle.pem'),
    },
    {
      pool: api.pool,
      temporal: client,
      logger: createLogger('test-worker', process.env['LONGHAUL_TEST_LOG'] ?? 'silent'),
      tracing: NO_TRACING,
    },
  );
  const connection = await NativeConnection.connect({ address: temporalAddress() });
  let running: { worker: Worker; ended: Promise<void> } | undefined;
  const stop = async (): Promise<void> => {
    running?.worker.shutdown();
    await running?.ended;
    running = undefined;
  };
  return {
    deps,
    gateway,
    async start() {
      const worker = await Worker.create({
        connection,
        taskQueue: api.taskQueue,
        workflowBundle: await (bundle as Promise<{ code: string }>),
        activities: createActivities(deps),
        maxHeartbeatThrottleInterval: '1s',
        defaultHeartbeatThrottleInterval: '1s',
        shutdownGraceTime: '1s',
        stickyQueueScheduleToStartTimeout: '1s',
      });
      running = { worker, ended: worker.run() };
    },
    stop,
    async close() {
      await stop();
      await connection.close();
      for (const provider of deps.sandboxProviders()) {
        for await (const { ref } of provider.list(deps.sandboxOwner, AbortSignal.timeout(30_000))) {
          await provider.destroy(ref, AbortSignal.timeout(30_000));
        }
      }
      await gateway.close();
      rmSync(home, { recursive: true, force: true });
    },
  };
}
