import type { Logger } from '../../telemetry/logger.ts';
import { LocalProvider } from './local/provider.ts';
import type { SandboxProvider } from './port.ts';

/** The providers this worker can use, by name. */
export function createSandboxProviders(options: { rootDir: string; logger: Logger }): Record<string, SandboxProvider> {
  return { local: new LocalProvider(options) };
}

export { stopAllSandboxes } from './local/life.ts';
