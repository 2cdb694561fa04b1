import type { Pool } from '../../db/pool.ts';
import type { Logger } from '../../telemetry/logger.ts';
import type { SecretSource } from '../../vault/source.ts';
import type { PolicyMetrics } from '../audit/metrics.ts';
import type { SecurityRecorder } from '../audit/security.ts';
import type { AuditWriter } from '../audit/writer.ts';
import type { Asks } from './asks.ts';
import type { OwnServices } from '../services/services.ts';
import type { PlaceholderWatch } from './placeholders.ts';

/** What all engines of a broker share. */
export interface Deps {
  pool: Pool;
  logger: Logger;
  secrets: SecretSource;
  writer: AuditWriter;
  security: SecurityRecorder;
  metrics: PolicyMetrics;
  asks: Asks;
  watch: PlaceholderWatch;
  services: OwnServices;
}
