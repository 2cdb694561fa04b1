import path from 'node:path';
import type { ActivityDeps } from '../activities/deps.ts';
import { readHarnessConfig } from '../activities/harness/config.ts';
import { createHarnessDrivers, requireDriver } from '../activities/harness/registry.ts';
import { createSandboxProviders } from '../activities/sandbox/index.ts';
import { LonghaulError } from '../contracts/error-codes.ts';
import { EgressClient } from '../egress/client.ts';
import type { WorkerConfig } from './config.ts';

/** The composition root: everything activities need, built once. */
export function createDeps(
  config: WorkerConfig,
  given: Pick<ActivityDeps, 'pool' | 'temporal' | 'logger' | 'tracing'>,
): ActivityDeps {
  const { logger } = given;
  const { sandboxRoot: rootDir, rootfsDir, daytona, docker, e2b, kubernetes } = config;
  const { installDir: harnessDir } = readHarnessConfig();
  const providers = createSandboxProviders({
    rootDir,
    rootfsDir,
    harnessDir,
    logger,
    daytona,
    docker,
    e2b,
    kubernetes,
  });
  const drivers = createHarnessDrivers({ home: config.home, logger });
  return {
    ...given,
    taskQueue: config.taskQueue,
    gatewayUrl: config.gatewayUrl,
    sandboxOwner: config.sandboxOwner,
    egress: config.egress === null ? null : new EgressClient(config.egress),
    trustBundleFile: config.trustBundleFile,
    harness: {
      driver: (name) => requireDriver(drivers, name),
      sessionsDir: path.join(config.home, 'harness', 'sessions'),
      apiUrl: config.apiUrl,
      holdMs: config.harnessHoldMs,
    },
    sandboxProvider(name) {
      const provider = providers[name];
      if (provider === undefined) throw new LonghaulError('sandbox_invalid', `no sandbox provider named ${name}`);
      return provider;
    },
    sandboxProviders: () => Object.values(providers),
  };
}
