import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { Registry, collectDefaultMetrics } from 'prom-client';
import { LonghaulError } from '../contracts/error-codes.ts';
import { newId } from '../contracts/ids.ts';
import { createPool, type Pool } from '../db/pool.ts';
import { createLogger } from '../telemetry/logger.ts';
import { createTracing } from '../telemetry/tracing.ts';
import { Authenticator } from './auth.ts';
import { readGatewayProcessConfig } from './config.ts';
import { sendError, sendJson } from './http.ts';
import { createGateway, type Gateway } from './server.ts';

/** The gateway as a process of its own: `/healthz` (alive), `/readyz` (database answers), `/metrics`, model routes. */
async function main(): Promise<void> {
  const config = readGatewayProcessConfig();
  const logger = createLogger('gateway', config.logLevel);
  const tracing = await createTracing('gateway', logger);
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const pool = createPool({ databaseUrl: config.databaseUrl, applicationName: 'longhaul-gateway', max: 20 });
  const gateway = createGateway({ pool, config, logger, registry, tracing });

  const authenticator = new Authenticator(pool);
  const metrics = async (req: IncomingMessage, res: ServerResponse): Promise<void> => {
    try {
      const caller = await authenticator.authenticate(req);
      if (caller.virtualKey !== undefined)
        throw new LonghaulError('forbidden', 'the key of a session reads no metrics');
      const text = await registry.metrics();
      res.writeHead(200, { 'content-type': registry.contentType }).end(text);
    } catch (error) {
      const known = error instanceof LonghaulError ? error : new LonghaulError('internal', 'metrics failed');
      sendError(res, 'messages', { error: known }, newId('request'));
    }
  };
  const server = createServer((req, res) => {
    if (gateway.handle(req, res)) return;
    if (req.method === 'GET' && req.url === '/healthz') sendJson(res, 200, {}, { status: 'ok' });
    else if (req.method === 'GET' && req.url === '/readyz') void answerReady(pool, gateway, res);
    else if (req.method === 'GET' && req.url === '/metrics') void metrics(req, res);
    else {
      // Without the query: some clients put a key there.
      const path = (req.url ?? '').split('?', 1)[0]?.slice(0, 200) ?? '';
      const error = new LonghaulError('route_not_found', `the gateway has no route ${req.method ?? ''} ${path}`);
      sendError(res, 'messages', { error }, newId('request'));
    }
  });
  server.listen(config.port, config.host, () => {
    const address = server.address();
    const port = typeof address === 'object' && address !== null ? address.port : config.port;
    logger.info({ host: config.host, port }, 'gateway listens');
  });

  let isStopping = false;
  const stop = async (signal: NodeJS.Signals): Promise<void> => {
    if (isStopping) return;
    isStopping = true;
    logger.info({ signal }, 'gateway stops');
    server.close();
    await gateway.close();
    await tracing.close();
    server.closeAllConnections();
    await pool.end();
  };
  process.on('SIGTERM', (signal) => void stop(signal));
  process.on('SIGINT', (signal) => void stop(signal));
}

async function answerReady(pool: Pool, gateway: Gateway, res: ServerResponse): Promise<void> {
  try {
    await pool.query('SELECT 1');
    // Last good routes are in use: not well, but ready.
    sendJson(res, 200, {}, { status: 'ready', ...(gateway.problems().length > 0 && { model_routes: 'stale' }) });
  } catch {
    sendJson(res, 503, {}, { status: 'database_unavailable' });
  }
}

await main();
