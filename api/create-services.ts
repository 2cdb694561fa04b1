import { EgressClient } from '../egress/client.ts';
import type { Pool } from '../db/pool.ts';
import type { Logger } from '../telemetry/logger.ts';
import { NO_TRACING, type Tracing } from '../telemetry/tracing.ts';
import type { ApiConfig } from './config.ts';
import { Delivery } from './delivery.ts';
import { EventHub } from './event-hub.ts';
import { Metrics } from './metrics.ts';
import { Schedules } from './schedules.ts';
import type { Services } from './services.ts';
import { connectTemporal } from './temporal.ts';

/** Builds what the routes work with. Nothing connects before it is used. */
export function createServices(given: { pool: Pool; config: ApiConfig; logger: Logger; tracing?: Tracing }): Services {
  const { pool, config, logger } = given;
  const metrics = new Metrics();
  const temporal = connectTemporal(config.temporal);
  const shared = { pool, temporal, taskQueue: config.taskQueue, logger };
  return {
    pool,
    temporal,
    delivery: new Delivery({ ...shared, metrics }),
    schedules: new Schedules(shared),
    hub: new EventHub({ pool, databaseUrl: config.databaseUrl, logger }),
    metrics,
    logger,
    tracing: given.tracing ?? NO_TRACING,
    config,
    vaultKeys: config.vaultKeys,
    egress: config.egress === null ? null : new EgressClient(config.egress),
    gatewayProblems: () => [],
  };
}
