import { HARNESS_INSTALL_NAMES, type HarnessInstallName } from '../../contracts/harness-versions.ts';
import { HARNESS_NAMES } from '../../contracts/harnesses.ts';
import type { ActivityDeps } from '../deps.ts';
import { readHarnessConfig } from './config.ts';
import { harnessBinary } from './installs.ts';
import type { HarnessCapabilities, HarnessDriver, HarnessName } from './port.ts';

/** What a worker has of harnesses. */
export interface HarnessReport {
  /** Programs that are installed in their pinned version. */
  installed: HarnessInstallName[];
  drivers: { name: HarnessName; capabilities: HarnessCapabilities }[];
}

/** Looks what this worker has; starts nothing. */
export async function reportHarnesses(deps: ActivityDeps): Promise<HarnessReport> {
  const { installDir } = readHarnessConfig();
  const drivers = HARNESS_NAMES.flatMap((name) => driverOf(deps, name) ?? []);
  return {
    installed: HARNESS_INSTALL_NAMES.filter((name) => harnessBinary(name, installDir) !== undefined),
    drivers: await Promise.all(
      drivers.map(async (driver) => ({ name: driver.name, capabilities: await driver.capabilities() })),
    ),
  };
}

function driverOf(deps: ActivityDeps, name: HarnessName): HarnessDriver | undefined {
  try {
    return deps.harness.driver(name);
  } catch {
    return undefined;
  }
}
