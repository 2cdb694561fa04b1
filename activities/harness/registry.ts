import path from 'node:path';
import { LonghaulError } from '../../contracts/error-codes.ts';
import type { Logger } from '../../telemetry/logger.ts';
import { acpDriver } from './acp/index.ts';
import { ClaudeCodeDriver } from './claude-code/driver.ts';
import { CodexDriver } from './codex/driver.ts';
import { readHarnessConfig } from './config.ts';
import { CopilotDriver } from './github-copilot/driver.ts';
import { LocalStdio } from './host/stdio-local.ts';
import { OpenCodeDriver } from './opencode/driver.ts';
import type { HarnessDriver, HarnessName } from './port.ts';

export interface DriverOptions {
  /** The stack's home: what drivers keep lies below `harness/`. */
  home: string;
  logger: Logger;
}

/** A server of a harness that ran and does not answer for so long is started anew. */
const SICK_MS = 20_000;

/**
 * Every driver of this worker. Whoever adds one adds its name to AVAILABLE_HARNESSES, too: the api takes agents of what stands
 * there.
 */
export function createHarnessDrivers({ home, logger }: DriverOptions): Partial<Record<HarnessName, HarnessDriver>> {
  const { installDir, idleMs } = readHarnessConfig();
  const host = { root: path.join(home, 'harness'), idleMs, sickMs: SICK_MS, logger };
  return {
    codex: new CodexDriver({ host, installDir }),
    'claude-code': new ClaudeCodeDriver({ place: new LocalStdio(), installDir }),
    'github-copilot': new CopilotDriver({ host, installDir }),
    opencode: new OpenCodeDriver({ host, installDir }),
    acp: acpDriver({ installDir, keepMs: idleMs }),
  };
}

export function requireDriver(drivers: Partial<Record<HarnessName, HarnessDriver>>, name: HarnessName): HarnessDriver {
  const driver = drivers[name];
  if (driver === undefined) throw new LonghaulError('harness_invalid', `${name} has no driver here`);
  return driver;
}
