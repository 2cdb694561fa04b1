import { LonghaulError } from '../../contracts/error-codes.ts';
import type { Logger } from '../../telemetry/logger.ts';
import type { HarnessDriver, HarnessName } from './port.ts';

export interface DriverOptions {
  /** The stack's home: what drivers keep lies below `harness/`. */
  home: string;
  logger: Logger;
}

/**
 * Every driver of this worker. Whoever adds one adds its name to AVAILABLE_HARNESSES, too: the api takes agents of what stands
 * there.
 */
export function createHarnessDrivers(_options: DriverOptions): Partial<Record<HarnessName, HarnessDriver>> {
  return {};
}

export function requireDriver(drivers: Partial<Record<HarnessName, HarnessDriver>>, name: HarnessName): HarnessDriver {
  const driver = drivers[name];
  if (driver === undefined) throw new LonghaulError('harness_invalid', `${name} has no driver here`);
  return driver;
}
