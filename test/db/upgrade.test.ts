import { fileURLToPath } from 'node:url';
import { runner } from 'node-pg-migrate';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { migrate } from '../../db/migrate.ts';
import type { Pool } from '../../db/pool.ts';
import { createPool } from '../../db/pool.ts';
import { findSessionSpend } from '../../db/queries/budgets.ts';
import { buildPrompt } from '../../activities/model/prompt.ts';
import { loadSessionForTurn } from '../../db/queries/session-status.ts';
import { emptyDatabase } from '../support/postgres.ts';

/** Migrations of the first release. */
const FIRST = 3;

let pool: Pool;
let end: () => Promise<void>;
let url: string;
beforeAll(async () => {
  const database = await emptyDatabase();
  url = database.url;
  await runner({
    databaseUrl: url,
    dir: fileURLToPath(new URL('../../db/migrations', import.meta.url)),
    direction: 'up',
    migrationsTable: 'schema_migrations',
    count: FIRST,
    log: () => undefined,
  });
  pool = createPool({ databaseUrl: url, applicationName: 'test', max: 2 });
  end = async () => {
    await pool.end();
    await database.drop();
  };
}, 120_000);
afterAll(() => end());

const LARGEST_BUDGET = '999999999999';

const budget = (amount: string): string =>
  JSON.stringify({ type: 'limit', max_list_cost: { amount, currency: 'USD' } });

async function fill(): Promise<void> {
  const agent = JSON.stringify({ name: 'a', model: { id: 'scripted' }, harness: 'native', tools: [], skills: [] });
  await pool.query(`INSERT INTO api_keys (id, name, key_hash, prefix, user_id, team_id)
    VALUES ('key_1', 'old', '\\x00', 'lhk_', 'u', 't')`);
  await pool.query(`INSERT INTO agents (id, team_id, latest_version, created_by) VALUES ('agent_1', 't', 1, 'u')`);
  await pool.query(`INSERT INTO agent_versions (agent_id, version, definition) VALUES ('agent_1', 1, $1)`, [agent]);
  await pool.query(`INSERT INTO environments (id, team_id, name, config)
    VALUES ('env_1', 't', 'e', '{"type":"cloud","provider":"local"}')`);
  await pool.query(`INSERT INTO deployments (id, team_id, name, agent_id, environment_id, initial_events, status, created_by)
    VALUES ('depl_1', 't', 'd', 'agent_1', 'env_1', '[]', 'active', 'u')`);
  const sessions: [string, string | null, string][] = [
    ['sesn_free', null, 'idle'],
    ['sesn_paid', budget('250'), 'running'],
    ['sesn_done', budget('1'), 'terminated'],
    ['sesn_rich', budget(LARGEST_BUDGET), 'idle'],
  ];
  for (const [id, limit, status] of sessions) {
    await pool.query(
      `INSERT INTO sessions (id, team_id, created_by, agent_id, agent_version, agent, environment_id, environment, budget,
         status, deployment_id, last_seq, current_turn)
       VALUES ($1, 't', 'u', 'agent_1', 1, $2, 'env_1', '{"type":"cloud","provider":"local"}', $3, $4, 'depl_1', 1, 1)`,
      [id, agent, limit, status],
    );
    await pool.query(
      `INSERT INTO events (session_id, seq, id, type, payload)
       VALUES ($1, 1, 'sevt_' || $1, 'user.message', '{"content":[{"type":"text","text":"hello"}]}')`,
      [id],
    );
    await pool.query(
      `INSERT INTO inputs (event_id, session_id, kind, message, state, turn)
       VALUES ('sevt_' || $1, $1, 'message', '{}', 'in_turn', 1)`,
      [id],
    );
    await pool.query(`INSERT INTO turns (session_id, turn, state, model) VALUES ($1, 1, 'running', 'scripted')`, [id]);
    await pool.query(
      `INSERT INTO virtual_keys (id, key_hash, team_id, user_id, session_id, max_parallel, expires_at)
       VALUES ('vk_' || $1, decode(md5($1), 'hex'), 't', 'u', $1, 16, now() + interval '1 day')`,
      [id],
    );
  }
  for (const [step, cost] of [1_000, 500, null].entries()) {
    await pool.query(
      `INSERT INTO ledger (id, call_key, team_id, user_id, session_id, turn, step, agent_id, agent_version, protocol,
         provider, model, input_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, output_tokens,
         reasoning_tokens, cost_micros, usage_basis, latency_ms)
       VALUES ('l' || $1::int, 'k' || $1::int, 't', 'u', 'sesn_paid', 1, $1, 'agent_1', 1, 'messages', 'scripted',
         'scripted', 10, 0, 0, 0, 5, 0, $2, 'reported', 20)`,
      [step, cost],
    );
  }
}

it('upgrades a database of the first release with all that is in it', { timeout: 120_000 }, async () => {
  await fill();
  await migrate(url);
  await migrate(url);
  const paid = await loadSessionForTurn(pool, 'sesn_paid');
  expect((await buildPrompt(pool, paid.id, paid.agent, '')).messages).toEqual([
    { role: 'user', content: [{ type: 'text', text: 'hello' }] },
  ]);
  // Pools have what the budgets said, less what was spent.
  expect(await findSessionSpend(pool, 'sesn_paid')).toBe(1_500);
  expect(await findSessionSpend(pool, 'sesn_free')).toBeUndefined();
  const { rows } = await pool.query(
    'SELECT scope_kind, scope_id, hard_limit_micros FROM budgets WHERE is_managed ORDER BY scope_id',
  );
  expect(rows).toEqual([
    { scope_kind: 'root_session', scope_id: 'sesn_done', hard_limit_micros: 10_000 },
    { scope_kind: 'root_session', scope_id: 'sesn_paid', hard_limit_micros: 2_500_000 },
    { scope_kind: 'root_session', scope_id: 'sesn_rich', hard_limit_micros: Number(LARGEST_BUDGET) * 10_000 },
  ]);
});
