import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createPool, type Pool } from '../../db/pool.ts';
import { testDatabase } from '../support/postgres.ts';
import { runCli } from '../support/stack.ts';

const MAP = {
  sample_spec: { max_tokens: 1 },
  'claude-opus-9': { litellm_provider: 'anthropic', input_cost_per_token: 1e-6, output_cost_per_token: 2e-6 },
  'dall-e-9': { litellm_provider: 'openai', mode: 'image_generation' },
};

describe('longhaul prices import', () => {
  let database: Awaited<ReturnType<typeof testDatabase>>;
  let pool: Pool;
  let folder: string;
  beforeAll(async () => {
    database = await testDatabase();
    pool = createPool({ databaseUrl: database.url, applicationName: 'test' });
    folder = mkdtempSync(path.join(os.tmpdir(), 'longhaul-prices-'));
  });
  afterAll(async () => {
    rmSync(folder, { recursive: true, force: true });
    await pool.end();
    await database.drop();
  });
  const run = (text: string, ...options: string[]) => {
    const file = path.join(folder, 'map.json');
    writeFileSync(file, text);
    return runCli(['prices', 'import', file, ...options], folder, { DATABASE_URL: database.url });
  };

  it('sets prices for every team or for one, and says what it left out', async () => {
    const everybody = await run(JSON.stringify(MAP));
    expect(everybody).toMatchObject({ code: 0, stdout: '' });
    expect(everybody.stderr).toContain('Set 1 prices for every team.');
    expect(everybody.stderr).toContain('dall-e-9: is no model that generates text');
    expect((await run(JSON.stringify(MAP), '--team', 'data')).code).toBe(0);
    expect((await run(JSON.stringify(MAP))).code).toBe(0);
    const rows = await pool.query('SELECT team_id, provider, model, source, set_by FROM model_prices ORDER BY team_id');
    const price = { provider: 'anthropic', model: 'claude-opus-9', source: 'litellm', set_by: 'operator' };
    expect(rows.rows).toEqual([
      { team_id: 'data', ...price },
      { team_id: null, ...price },
    ]);
  }, 120_000);

  it.each(['{"a":', '[]', 'null'])('refuses %s', async (text) => {
    const refused = await run(text);
    expect(refused.code).toBe(1);
    expect(refused.stderr).toContain('JSON');
  });
});
