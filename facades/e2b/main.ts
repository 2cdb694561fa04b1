import { createLogger } from '../../telemetry/logger.ts';
import { readConfig } from './config.ts';
import { serveE2b } from './serve.ts';

/** The E2B-compatible server as a process of its own. */
async function main(): Promise<void> {
  const config = readConfig();
  const logger = createLogger('e2b', config.logLevel);
  process.on('uncaughtException', (error) => logger.fatal({ err: error }, 'uncaught exception'));
  process.on('unhandledRejection', (reason) => logger.fatal({ err: reason }, 'unhandled rejection'));
  const { close } = await serveE2b(config, logger);
  let isAsked = false;
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => {
      if (isAsked) return;
      isAsked = true;
      logger.info({ signal }, 'stopping');
      close().then(
        () => process.exit(0),
        () => process.exit(1),
      );
    });
  }
}

main().catch((error: unknown) => {
  createLogger('e2b').fatal({ err: error }, 'the e2b server did not start');
  process.exit(1);
});
