import type { AddressInfo } from 'node:net';
import type { Server } from 'node:http';
import { createServer } from 'node:http';
import { createPool } from '../db/pool.ts';
import { readGatewayConfig, takeEnvironment } from '../gateway/config.ts';
import { createGateway } from '../gateway/server.ts';
import type { Logger } from '../telemetry/logger.ts';
import { createLogger } from '../telemetry/logger.ts';
import { createTracing } from '../telemetry/tracing.ts';
import { createApp } from './app.ts';
import { requireSafeBind } from './bind.ts';
import { readConfig } from './config.ts';
import { createServices } from './create-services.ts';
import type { EventHub } from './event-hub.ts';
import { runSweep } from './sweep.ts';

const DRAIN_MS = 8_000;

/** The API process: gateway paths first, then the API; also the sweep that delivers what a crash left behind. */
async function main(): Promise<void> {
  const config = readConfig(takeEnvironment());
  const logger = createLogger('api', config.logLevel);
  process.on('uncaughtException', (error) => logger.fatal({ err: error }, 'uncaught exception'));
  process.on('unhandledRejection', (reason) => logger.fatal({ err: reason }, 'unhandled rejection'));

  const pool = createPool({ databaseUrl: config.databaseUrl, applicationName: 'longhaul-api', max: 20 });
  await requireSafeBind(pool, config);
  const tracing = await createTracing('api', logger);
  const services = createServices({ pool, config, logger, tracing });
  services.metrics.collectDefaults();
  const gateway = createGateway({
    pool,
    config: readGatewayConfig(),
    logger,
    registry: services.metrics.registry,
    tracing,
  });
  services.gatewayProblems = () => gateway.problems();
  const app = createApp(services);
  const server = createServer((req, res) => {
    if (!gateway.handle(req, res)) app(req, res);
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(config.port, config.host, resolve);
  });
  services.hub.start();
  const stopping = new AbortController();
  const sweeping = runSweep(services, stopping.signal);
  const { port } = server.address() as AddressInfo;
  logger.info({ host: config.host, port }, 'api listens');

  onStopSignal(logger, async () => {
    stopping.abort();
    await Promise.all([closeServer(server, services.hub), gateway.close(DRAIN_MS)]);
    await services.delivery.drain();
    // Closing ends the calls of a sweep that waits for a Temporal that is away.
    await Promise.allSettled([services.temporal.close(), sweeping, services.hub.stop()]);
    await Promise.all([pool.end(), tracing.close()]);
  });
}

/** Ends streams at once, lets running requests end, then cuts what is left. */
async function closeServer(server: Server, hub: EventHub): Promise<void> {
  const closed = new Promise((resolve) => server.close(resolve));
  hub.endAll();
  // A connection that becomes idle after close() would stay until its keep-alive ends.
  const idle = setInterval(() => server.closeIdleConnections(), 50);
  const cut = setTimeout(() => server.closeAllConnections(), DRAIN_MS);
  await closed;
  clearInterval(idle);
  clearTimeout(cut);
}

function onStopSignal(logger: Logger, stop: () => Promise<void>): void {
  let asked = false;
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => {
      if (asked) return;
      asked = true;
      logger.info({ signal }, 'stopping');
      stop().then(
        () => process.exit(0),
        (error: unknown) => {
          logger.error({ err: error }, 'stopping failed');
          process.exit(1);
        },
      );
    });
  }
}

main().catch((error: unknown) => {
  createLogger('api').fatal({ err: error }, 'api did not start');
  process.exit(1);
});
