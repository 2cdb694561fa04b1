import type { EgressClient } from '../egress/client.ts';
import type { Pool } from '../db/pool.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { Tracing } from '../telemetry/tracing.ts';
import type { ApiConfig } from './config.ts';
import type { Delivery } from './delivery.ts';
import type { EventHub } from './event-hub.ts';
import type { Metrics } from './metrics.ts';
import type { Schedules } from './schedules.ts';
import type { KeyRing } from '../vault/key-ring.ts';
import type { Temporal } from './temporal.ts';

/** What routes work with; built once, in main.ts or by a test. */
export interface Services {
  pool: Pool;
  temporal: Temporal;
  delivery: Delivery;
  schedules: Schedules;
  hub: EventHub;
  metrics: Metrics;
  logger: Logger;
  tracing: Tracing;
  config: ApiConfig;
  /** Seals what vaults hold; nothing here opens it. */
  vaultKeys: KeyRing;
  egress: EgressClient | null;
  /** What is wrong with the routes of the gateway in this process; set by who runs one. */
  gatewayProblems: () => readonly string[];
}
