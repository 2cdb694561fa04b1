import { Registry, collectDefaultMetrics } from 'prom-client';
import { createPool } from '../db/pool.ts';
import { createLogger } from '../telemetry/logger.ts';
import { openVault } from '../vault/broker.ts';
import { isPublicAddress } from './addresses.ts';
import { Broker } from './broker.ts';
import { readEgressConfig, takeEnvironment } from './config.ts';
import { createControl } from './control.ts';
import { databaseDirectory } from './directory.ts';
import { readPolicyConfig } from './policy/config.ts';
import { Policies } from './policy/policies.ts';
import { readPortsConfig } from './ports/config.ts';
import { PortsServer } from './ports/server.ts';
import { sendToMcpServer } from './mcp.ts';
import { listenPublicly } from './public-listener.ts';

/** The egress broker: the only way out of a sandbox, and the only process that holds values of secrets. */
async function main(): Promise<void> {
  const env = takeEnvironment();
  const config = readEgressConfig(env);
  const portsConfig = readPortsConfig(env);
  const logger = createLogger('egress', config.logLevel);
  process.on('uncaughtException', (error) => logger.fatal({ err: error }, 'uncaught exception'));
  process.on('unhandledRejection', (reason) => logger.fatal({ err: reason }, 'unhandled rejection'));
  const { databaseUrl } = config;
  const vault = openVault({ databaseUrl, env, logger, isPublicAddress });
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const pool = createPool({ databaseUrl: config.databaseUrl, applicationName: 'longhaul-egress', max: 5 });
  const policies = new Policies({
    ...readPolicyConfig(env),
    pool,
    databaseUrl: config.databaseUrl,
    logger,
    registry,
    secrets: vault.secrets,
  });
  const broker = new Broker({ config, policies, directory: databaseDirectory(pool), logger, registry });
  const publicListener = config.public === null ? null : await listenPublicly(config.public, broker.front);
  const ports = new PortsServer({ db: pool, url: portsConfig.url, logger });
  await ports.listen(portsConfig.port, portsConfig.host);
  const control = createControl(broker, config.token, logger, {
    vault,
    sendToMcpServer: (sessionId, message) =>
      sendToMcpServer({ pool, policies, outbound: vault.outbound }, sessionId, message),
  });
  await new Promise<void>((resolve, reject) => {
    control.once('error', reject);
    control.listen(config.port, config.host, resolve);
  });
  logger.info({ host: config.host, port: config.port }, 'egress broker ready');
  broker
    .reconcile()
    .catch((error: unknown) => logger.warn({ err: error }, 'the sandboxes could not be looked through'));

  let isStopping = false;
  const stop = async (signal: NodeJS.Signals): Promise<void> => {
    if (isStopping) return;
    isStopping = true;
    logger.info({ signal }, 'egress broker stops');
    control.close();
    publicListener?.close();
    await ports.close();
    await broker.close();
    control.closeAllConnections();
    await Promise.all([vault.close(), pool.end()]);
  };
  process.on('SIGTERM', (signal) => void stop(signal));
  process.on('SIGINT', (signal) => void stop(signal));
}

main().catch((error: unknown) => {
  // A broker that does not serve must not stay: whoever supervises it would wait for nothing.
  createLogger('egress').fatal({ err: error }, 'egress broker did not start');
  process.exit(1);
});
