import type { Client } from '@temporalio/client';
import type { Pool } from '../db/pool.ts';
import type { EgressClient } from '../egress/client.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { Tracing } from '../telemetry/tracing.ts';
import type { HarnessDriver, HarnessName } from './harness/port.ts';
import type { SandboxProvider } from './sandbox/port.ts';

/** What activities work with; built once in worker/deps.ts. */
export interface ActivityDeps {
  pool: Pool;
  logger: Logger;
  tracing: Tracing;
  temporal: Client;
  taskQueue: string;
  /** Base URL of the gateway, without a trailing slash. */
  gatewayUrl: string;
  /** Throws `sandbox_invalid` for a provider that is not configured. */
  sandboxProvider(name: string): SandboxProvider;
  sandboxProviders(): SandboxProvider[];
  /** Label of this installation's sandboxes. */
  sandboxOwner: string;
  /** null: no broker; sandboxes that need one have no network. */
  egress: EgressClient | null;
  /** Authorities that programs in a sandbox trust, the broker's among them; made by the broker. */
  trustBundleFile: string;
  harness: HarnessDeps;
}

/** What turns of harnesses need. */
export interface HarnessDeps {
  /** Throws `harness_invalid` for one that has no driver here. */
  driver(name: HarnessName): HarnessDriver;
  /** Folder of the sessions' own folders. */
  sessionsDir: string;
  /** Base URL of the api as harnesses reach it, without a trailing slash. */
  apiUrl: string;
  /** How long a harness is held while people are asked. */
  holdMs: number;
}
