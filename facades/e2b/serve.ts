import { mkdirSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { createSandboxProviders } from '../../activities/sandbox/index.ts';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { createPool } from '../../db/pool.ts';
import { EgressClient } from '../../egress/client.ts';
import type { Logger } from '../../telemetry/logger.ts';
import type { E2bServerConfig } from './config.ts';
import { endLeftWatches } from './envd/watch.ts';
import { bounded, type E2bDeps } from './sandboxes.ts';
import { createE2bServer } from './server.ts';
import { runSweep } from './sweep.ts';
import { Tokens } from './tokens.ts';

const DRAIN_MS = 5_000;

/** Starts the E2B-compatible server over local sandboxes. Commands of its sandboxes outlive it. */
export async function serveE2b(
  config: E2bServerConfig,
  logger: Logger,
): Promise<{ url: string; close: () => Promise<void> }> {
  mkdirSync(config.sandboxRoot, { recursive: true, mode: 0o700 });
  const provider = createSandboxProviders({ rootDir: config.sandboxRoot, logger })['local'];
  if (provider === undefined) throw new LonghaulError('setup_required', 'there is no local sandbox');
  const pool = createPool({ databaseUrl: config.databaseUrl, applicationName: 'longhaul-e2b', max: 20 });
  const egress = config.egress === null ? null : new EgressClient(config.egress);
  const deps: E2bDeps = { pool, provider, egress, config, logger, tokens: Tokens.ofHome(config.home) };
  const server = createE2bServer(deps);
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(config.port, config.host, resolve);
  });
  const stopping = new AbortController();
  const sweeping = tidyUp(deps).then(() => runSweep(deps, stopping.signal));
  const { port } = server.address() as AddressInfo;
  logger.info({ host: config.host, port }, 'e2b server listens');
  return {
    url: `http://${config.host.includes(':') ? `[${config.host}]` : config.host}:${port}`,
    async close() {
      stopping.abort();
      const closed = new Promise((resolve) => server.close(resolve));
      server.closeIdleConnections();
      const cut = setTimeout(() => server.closeAllConnections(), DRAIN_MS);
      await closed;
      clearTimeout(cut);
      await sweeping;
      await pool.end();
    },
  };
}

/** Streams of a server that was killed have nobody any more who ends what feeds them. */
async function tidyUp(deps: E2bDeps): Promise<void> {
  try {
    for await (const info of deps.provider.list(deps.config.owner, bounded())) {
      if (info.state === 'running') await endLeftWatches(deps, info);
    }
  } catch (error) {
    deps.logger.warn({ err: error }, 'watches that were left behind could not be ended');
  }
}
