import { describe, expect, it } from 'vitest';
import { createApiKey, findApiKey } from '../../db/queries/api-keys.ts';
import { createPool } from '../../db/pool.ts';
import { emptyDatabase, testDatabase } from '../support/postgres.ts';
import { testTemporal } from '../support/temporal.ts';

describe('servers shared by all tests', () => {
  it('gives each caller a migrated database of its own', async () => {
    const [first, second] = await Promise.all([testDatabase(), testDatabase()]);
    const pools = [first, second].map((database) =>
      createPool({ databaseUrl: database.url, applicationName: 'test', max: 2 }),
    );
    try {
      const { key } = await createApiKey(pools[0]!, { name: 'one', userId: 'u', teamId: 't' });
      expect(await findApiKey(pools[0]!, key)).toMatchObject({ userId: 'u', teamId: 't' });
      expect(await findApiKey(pools[1]!, key)).toBeUndefined();
    } finally {
      await Promise.all(pools.map((pool) => pool.end()));
      await Promise.all([first.drop(), second.drop()]);
    }
  });

  it('gives an empty database when asked', async () => {
    const database = await emptyDatabase();
    const pool = createPool({ databaseUrl: database.url, applicationName: 'test', max: 1 });
    try {
      await expect(pool.query('SELECT 1 FROM api_keys')).rejects.toThrow(/does not exist/);
    } finally {
      await pool.end();
      await database.drop();
    }
  });

  it('has a Temporal namespace with our search attributes', async () => {
    const temporal = await testTemporal();
    try {
      const { customAttributes } = await temporal.connection.operatorService.listSearchAttributes({
        namespace: temporal.namespace,
      });
      expect(Object.keys(customAttributes ?? {})).toEqual(
        expect.arrayContaining(['AgentId', 'TeamId', 'SessionStatus', 'NeedsApproval', 'CostMicros', 'Labels']),
      );
    } finally {
      await temporal.close();
    }
  });
});
