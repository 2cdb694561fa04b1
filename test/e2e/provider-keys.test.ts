import { randomUUID } from 'node:crypto';
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startUpstream, type Upstream } from '../gateway/support.ts';
import { bash, SessionDriver, STACK_TEST_MS } from '../support/session-driver.ts';
import { makeHome, startStack, type TestStack } from '../support/stack.ts';

/** Each is a word that is nowhere else, so that whatever finds it has found that key. */
const secret = (name: string): string => `${name}-${randomUUID().replaceAll('-', '')}`;
const KEYS: Record<string, string> = {
  ANTHROPIC_API_KEY: secret('sk-ant-provider'),
  OPENAI_API_KEY: secret('sk-openai-provider'),
  AWS_SECRET_ACCESS_KEY: secret('aws-secret'),
  LISTED_PROVIDER_KEY: secret('listed-provider'),
  FILE_PROVIDER_KEY: secret('file-provider'),
};
const LITERAL_KEY = secret('sk-literal');
/** No key: it must be found, or nothing would be. */
const CANARY = secret('canary');
const ANSWER = { id: 'msg_1', type: 'message', role: 'assistant', content: [], model: 'x', stop_reason: 'end_turn' };

describe('providers’ keys', { timeout: STACK_TEST_MS }, () => {
  let stack: TestStack;
  let driver: SessionDriver;
  let upstream: Upstream;

  beforeAll(async () => {
    upstream = await startUpstream();
    const home = makeHome();
    const file = path.join(home, 'gateway.yaml');
    const deployment = { provider: 'openai-compatible', model: 'm', base_url: upstream.url };
    writeFileSync(
      file,
      JSON.stringify({
        routes: [{ name: 'filed', deployments: [{ ...deployment, api_key: 'env:FILE_PROVIDER_KEY' }] }],
      }),
    );
    stack = await startStack({
      home,
      env: {
        ...KEYS,
        ANTHROPIC_BASE_URL: upstream.url,
        LONGHAUL_GATEWAY_CREDENTIALS: 'LISTED_PROVIDER_KEY',
        LONGHAUL_GATEWAY_CONFIG: file,
        LONGHAUL_LOG_LEVEL: 'trace',
      },
    });
    driver = new SessionDriver(stack);
  });
  afterAll(async () => {
    await driver.close();
    await stack.stop();
    await upstream.close();
  });

  /** A model call; gives the header in which the provider got its key. */
  const keyThatArrives = async (model: string, asPath: string): Promise<string | undefined> => {
    upstream.requests.length = 0;
    upstream.answer = (_req, res) =>
      res.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(ANSWER));
    const body = { model, max_tokens: 5, messages: [{ role: 'user', content: 'hi' }] };
    await driver.until('the call is answered', async () => (await driver.call('POST', asPath, body)).status === 200);
    const { headers } = upstream.requests.at(-1) ?? {};
    return (headers?.['x-api-key'] as string | undefined) ?? headers?.authorization;
  };

  const keysArrive = async (): Promise<void> => {
    expect(await keyThatArrives('claude-opus-5', '/v1/messages')).toBe(KEYS['ANTHROPIC_API_KEY']);
    expect(await keyThatArrives('filed', '/v1/chat/completions')).toBe(`Bearer ${KEYS['FILE_PROVIDER_KEY']}`);
    expect(await keyThatArrives('listed', '/v1/chat/completions')).toBe(`Bearer ${KEYS['LISTED_PROVIDER_KEY']}`);
  };

  it('are nowhere but in the process of the gateway', async () => {
    const deployment = { provider: 'openai-compatible', model: 'm', base_url: upstream.url };
    const route = (apiKey: string): object => ({ name: 'listed', deployments: [{ ...deployment, api_key: apiKey }] });
    const refused = await driver.call('POST', '/v1/model-routes', route(LITERAL_KEY));
    expect(refused.status).toBe(400);
    expect(JSON.stringify(refused.body)).toContain('deployments[0].api_key');
    expect(JSON.stringify(refused.body)).not.toContain(LITERAL_KEY);
    expect((await driver.call('POST', '/v1/model-routes', route('env:LISTED_PROVIDER_KEY'))).status).toBe(200);
    await keysArrive();

    // Providers say all kinds of things about keys they refuse.
    upstream.answer = (req, res) => {
      const error = { type: 'authentication_error', message: `wrong key ${String(req.headers['x-api-key'])}` };
      res.writeHead(401, { 'content-type': 'application/json' }).end(JSON.stringify({ type: 'error', error }));
    };
    const body = { model: 'claude-opus-5', max_tokens: 5, messages: [{ role: 'user', content: 'hi' }] };
    const answer = await driver.call('POST', '/v1/messages', body);
    expect(answer.status).toBe(502);
    expect(found(JSON.stringify(answer.body))).toEqual([]);

    // A model that looks for them, with a command that goes on while we look.
    const look = `env; cat /proc/*/environ 2>/dev/null | tr '\\0' '\\n'; echo ${CANARY}; sleep 300 &`;
    const sessionId = await driver.open([{ tools: [bash(look)] }, { text: 'done' }]);
    await driver.quiet([sessionId]);

    expect(new Set(await foundInDatabase(stack.devJson.databaseUrl))).toEqual(new Set(['canary']));
    const temporal = await driver.temporal();
    const histories: string[] = [];
    for await (const { workflowId, runId } of temporal.workflow.list()) {
      const history = await temporal.workflow.getHandle(workflowId, runId).fetchHistory();
      histories.push(JSON.stringify(history, decoded));
    }
    expect(histories.join('\n')).toContain(sessionId);
    expect(found(histories.join('\n'))).toEqual([]);
    expect(new Set(foundInFiles(stack.home))).toEqual(new Set(['canary']));
    expect(holders()).toEqual([stack.pids().supervisor]);
  });

  it('come back with a gateway that was killed', async () => {
    await stack.killAndRecover('api');
    await keysArrive();
    expect(holders()).toEqual([stack.pids().supervisor]);
  });
});

/** Which keys a text holds, also in the encodings in which it could be stored. */
function found(text: string): string[] {
  return [...Object.entries(KEYS), ['literal', LITERAL_KEY] as const, ['canary', CANARY] as const]
    .filter(([, value]) => {
      const hex = Buffer.from(value).toString('hex');
      return [value, hex, Buffer.from(value).toString('base64').replace(/=+$/, '')].some((form) => text.includes(form));
    })
    .map(([name]) => name);
}

/** Every row of every table, as text. */
async function foundInDatabase(url: string): Promise<string[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    const tables = await client.query<{ name: string }>(
      `SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables
       WHERE schemaname NOT IN ('pg_catalog', 'information_schema')`,
    );
    expect(tables.rows.length).toBeGreaterThan(20);
    const hits: string[] = [];
    for (const { name } of tables.rows) {
      const rows = await client.query<{ line: string }>(`SELECT t::text AS line FROM ${name} t`);
      const text = rows.rows.map(({ line }) => line).join('\n');
      hits.push(...found(text));
    }
    return hits;
  } finally {
    await client.end();
  }
}

/** Payloads of Temporal are bytes, which its JSON form would hide. */
function decoded(_name: string, value: unknown): unknown {
  if (value instanceof Uint8Array) return Buffer.from(value).toString('utf8');
  const json = value as { type?: string; data?: number[] } | null;
  const isBuffer = typeof json === 'object' && json?.type === 'Buffer' && Array.isArray(json.data);
  return isBuffer ? Buffer.from(json.data ?? []).toString('utf8') : value;
}

/** Everything a stack keeps on disk: logs, Temporal's database, Postgres with its journal, state. */
function foundInFiles(home: string): string[] {
  const files = readdirSync(home, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  expect(files.length).toBeGreaterThan(100);
  return files.flatMap((entry) => {
    const file = path.join(entry.parentPath, entry.name);
    try {
      if (statSync(file).size === 0) return [];
      return found(readFileSync(file, 'latin1'));
    } catch {
      // Gone since the list was made.
      return [];
    }
  });
}

/** Processes of this machine that have a key in their environment or command line. */
function holders(): number[] {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  expect(pids.length).toBeGreaterThan(5);
  return pids
    .filter((pid) => {
      try {
        const both = ['environ', 'cmdline'].map((name) => readFileSync(`/proc/${pid}/${name}`, 'latin1'));
        return found(both.join('\n')).length > 0;
      } catch {
        return false;
      }
    })
    .map(Number);
}
