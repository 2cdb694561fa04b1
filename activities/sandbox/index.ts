import type { Logger } from '../../telemetry/logger.ts';
import type { DaytonaOptions } from './daytona/provider.ts';
import { DaytonaProvider } from './daytona/provider.ts';
import { LocalProvider } from './local/provider.ts';
import type { SandboxProvider } from './port.ts';

/** What is not given is not there. */
export interface SandboxProviderOptions {
  rootDir: string;
  logger: Logger;
  daytona?: DaytonaOptions | undefined;
}

/** The providers this worker can use, by name. */
export function createSandboxProviders(options: SandboxProviderOptions): Record<string, SandboxProvider> {
  const providers: SandboxProvider[] = [new LocalProvider(options)];
  if (options.daytona !== undefined) providers.push(new DaytonaProvider(options.daytona));
  return Object.fromEntries(providers.map((provider) => [provider.name, provider]));
}

export { stopAllSandboxes } from './local/life.ts';
