import type { Express } from 'express';
import { randomBytes } from 'node:crypto';
import request from 'supertest';
import { createApp } from '../../api/app.ts';
import { createServices } from '../../api/create-services.ts';
import type { Services } from '../../api/services.ts';
import type { Pool } from '../../db/pool.ts';
import { createPool } from '../../db/pool.ts';
import { createApiKey } from '../../db/queries/api-keys.ts';
import { createLogger } from '../../telemetry/logger.ts';
import { KeyRing } from '../../vault/key-ring.ts';
import { testDatabase } from '../support/postgres.ts';

export interface TestApi {
  app: Express;
  services: Services;
  pool: Pool;
  key: string;
  databaseUrl: string;
  taskQueue: string;
  /** A key of another team. */
  otherKey: string;
  get(path: string): request.Test;
  post(path: string, body?: object): request.Test;
  delete(path: string): request.Test;
  close(): Promise<void>;
}

/** The API in this process over a database of its own; nothing in the background runs unless a test starts it. */
export async function testApi(options: { temporalAddress?: string } = {}): Promise<TestApi> {
  const database = await testDatabase();
  const pool = createPool({ databaseUrl: database.url, applicationName: 'test-api' });
  const taskQueue = `test-${randomBytes(8).toString('hex')}`;
  const logger = createLogger('test', process.env['LONGHAUL_TEST_LOG'] ?? 'silent');
  const services = createServices({
    pool,
    logger,
    config: {
      databaseUrl: database.url,
      temporal: {
        connection: {
          address: options.temporalAddress ?? process.env['LONGHAUL_TEST_TEMPORAL_ADDRESS'] ?? '127.0.0.1:1',
        },
        namespace: 'default',
      },
      taskQueue,
      host: '127.0.0.1',
      port: 0,
      allowPublic: false,
      publicUrl: '',
      portsUrl: 'http://localhost:4881',
      logLevel: 'silent',
      egress: null,
      vaultKeys: KeyRing.parse(randomBytes(32).toString('base64')),
    },
  });
  const app = createApp(services);
  const { key } = await createApiKey(pool, { name: 'test', userId: 'ada', teamId: 'team-a' });
  const { key: otherKey } = await createApiKey(pool, { name: 'other', userId: 'bob', teamId: 'team-b' });
  const bearer = `Bearer ${key}`;
  return {
    app,
    services,
    pool,
    key,
    otherKey,
    taskQueue,
    databaseUrl: database.url,
    get: (path) => request(app).get(path).set('authorization', bearer),
    post: (path, body) => {
      const sent = request(app).post(path).set('authorization', bearer);
      return body === undefined ? sent : sent.send(body);
    },
    delete: (path) => request(app).delete(path).set('authorization', bearer),
    close: async () => {
      await services.delivery.drain();
      await services.hub.stop();
      await services.temporal.close();
      await pool.end();
      await database.drop();
    },
  };
}

/** An agent and an environment to open sessions with. */
export async function makeAgent(api: TestApi, body: object = {}): Promise<{ agentId: string; environmentId: string }> {
  const agent = await api.post('/v1/agents', { name: 'Helper', model: 'scripted', ...body }).expect(200);
  const environment = await api.post('/v1/environments', { name: 'Box' }).expect(200);
  return { agentId: agent.body.id as string, environmentId: environment.body.id as string };
}

export async function makeSession(api: TestApi, body: object = {}): Promise<string> {
  const { agentId, environmentId } = await makeAgent(api);
  const made = await api.post('/v1/sessions', { agent: agentId, environment_id: environmentId, ...body }).expect(200);
  return made.body.id as string;
}
