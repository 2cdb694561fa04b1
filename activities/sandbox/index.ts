import type { Logger } from '../../telemetry/logger.ts';
import type { DaytonaOptions } from './daytona/provider.ts';
import { DaytonaProvider } from './daytona/provider.ts';
import { DockerProvider, type DockerOptions } from './docker/provider.ts';
import { E2bProvider } from './e2b/provider.ts';
import type { E2bOptions } from './e2b/sdk.ts';
import type { KubernetesOptions } from './kubernetes/provider.ts';
import { KubernetesProvider } from './kubernetes/provider.ts';
import { MacosProvider } from './local/macos.ts';
import { LocalProvider } from './local/provider.ts';
import type { SandboxProvider } from './port.ts';

/** What is not given is not there. */
export interface SandboxProviderOptions {
  rootDir: string;
  /** Of the local provider: root file systems, one folder each. */
  rootfsDir?: string | undefined;
  /** Of the local provider: programs of harnesses, which sandboxes see. */
  harnessDir?: string | undefined;
  logger: Logger;
  daytona?: DaytonaOptions | undefined;
  docker?: DockerOptions | undefined;
  e2b?: E2bOptions | undefined;
  kubernetes?: KubernetesOptions | undefined;
}

/** The providers this worker can use, by name. */
export function createSandboxProviders(options: SandboxProviderOptions): Record<string, SandboxProvider> {
  const providers: SandboxProvider[] = [
    process.platform === 'darwin' ? new MacosProvider(options) : new LocalProvider(options),
  ];
  if (options.daytona !== undefined) providers.push(new DaytonaProvider(options.daytona));
  if (options.docker !== undefined) providers.push(new DockerProvider(options.docker));
  if (options.e2b !== undefined) providers.push(new E2bProvider(options.e2b));
  if (options.kubernetes !== undefined) providers.push(new KubernetesProvider(options.kubernetes));
  return Object.fromEntries(providers.map((provider) => [provider.name, provider]));
}

export { stopAllSandboxes } from './local/life.ts';
