import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { connect, createServer as createTcpServer, type AddressInfo, type Socket } from 'node:net';
import { readGatewayConfig, type GatewayConfig } from '../../gateway/config.ts';
import { createGateway } from '../../gateway/server.ts';
import { newId } from '../../contracts/ids.ts';
import { putSessionBudget } from '../../db/queries/budgets.ts';
import { createPool, type Pool } from '../../db/pool.ts';
import { mintVirtualKey, type VirtualKeyDraft } from '../../db/queries/virtual-keys.ts';
import { createLogger } from '../../telemetry/logger.ts';
import { testDatabase } from '../support/postgres.ts';

export interface TestBed {
  pool: Pool;
  databaseUrl: string;
  close(): Promise<void>;
}

/** A database of its own with a pool on it. */
export async function openTestBed(): Promise<TestBed> {
  const database = await testDatabase();
  const pool = createPool({ databaseUrl: database.url, applicationName: 'test-gateway' });
  return {
    pool,
    databaseUrl: database.url,
    close: async () => {
      await pool.end();
      await database.drop();
    },
  };
}

export async function listen(server: Server): Promise<string> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

export async function stop(server: Server): Promise<void> {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
}

export interface RunningGateway {
  url: string;
  config: GatewayConfig;
  problems(): readonly string[];
  close(): Promise<void>;
}

/** A gateway in this process; `env` is its environment. */
export async function startGateway(
  pool: Pool,
  env: Record<string, string> = {},
  overrides: Partial<GatewayConfig> = {},
): Promise<RunningGateway> {
  const config = { ...readGatewayConfig({ LONGHAUL_SCRIPTED: '1', ...env }), ...overrides };
  const gateway = createGateway({ pool, config, logger: createLogger('test', 'silent') });
  const server = createServer((req, res) => {
    if (!gateway.handle(req, res)) res.writeHead(418).end();
  });
  const url = await listen(server);
  return {
    url,
    config,
    problems: () => gateway.problems(),
    close: async () => {
      await gateway.close(1_000);
      await stop(server);
    },
  };
}

/** A session row, with everything it refers to. */
export async function createSession(pool: Pool, options: { budgetCents?: string } = {}): Promise<string> {
  const [agent, environment, session] = [newId('agent'), newId('environment'), newId('session')];
  await pool.query(`INSERT INTO agents (id, team_id, latest_version, created_by) VALUES ($1, 'team', 1, 'user')`, [
    agent,
  ]);
  await pool.query(`INSERT INTO agent_versions (agent_id, version, definition) VALUES ($1, 1, '{}')`, [agent]);
  await pool.query(`INSERT INTO environments (id, team_id, name, config) VALUES ($1, 'team', 'e', '{}')`, [
    environment,
  ]);
  const budget =
    options.budgetCents === undefined
      ? null
      : ({ type: 'limit', max_list_cost: { amount: options.budgetCents, currency: 'USD' } } as const);
  await pool.query(
    `INSERT INTO sessions (id, team_id, created_by, agent_id, agent_version, agent, environment_id, environment, budget)
     VALUES ($1, 'team', 'user', $2, 1, '{}', $3, '{}', $4)`,
    [session, agent, environment, budget === null ? null : JSON.stringify(budget)],
  );
  await putSessionBudget(pool, { id: session, teamId: 'team', createdBy: 'user' }, budget);
  return session;
}

/** A virtual key; of a session when `sessionId` is given. */
export async function mintKey(pool: Pool, draft: Partial<VirtualKeyDraft> = {}): Promise<string> {
  const { key } = await mintVirtualKey(pool, { teamId: 'team', userId: 'user', ...draft });
  return key;
}

/** Text of a user message that holds a script. */
export function scriptText(steps: object[], before = 'Please work.'): string {
  return `${before}\n\n\`\`\`script\n${JSON.stringify(steps)}\n\`\`\`\n`;
}

/** A Messages request with one user message. */
export function messagesRequest(text: string, extra: object = {}): Record<string, unknown> {
  return { model: 'scripted', max_tokens: 1_000, messages: [{ role: 'user', content: text }], ...extra };
}

export function post(url: string, key: string, body: unknown, headers: Record<string, string> = {}): Promise<Response> {
  return fetch(url, {
    method: 'POST',
    headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json', ...headers },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  });
}

export interface ErrorAnswer {
  type?: string;
  error: { type: string; message: string; code: string };
}

export async function errorOf(response: Response): Promise<ErrorAnswer['error']> {
  const { error } = (await response.json()) as ErrorAnswer;
  // A provider's own error keeps its words; ours for it stands beside.
  return { ...error, code: response.headers.get('x-longhaul-error') ?? error.code };
}

export type LedgerRow = Record<string, unknown>;

export async function ledgerRows(pool: Pool): Promise<LedgerRow[]> {
  return (await pool.query<LedgerRow>('SELECT * FROM ledger ORDER BY created_at, id')).rows;
}

/** Waits for a condition; the test's own timeout is the limit. */
export async function eventually<T>(probe: () => Promise<T | undefined | false> | T | undefined | false): Promise<T> {
  const deadlineMs = Date.now() + 20_000;
  for (;;) {
    const value = await probe();
    if (value !== undefined && value !== false) return value;
    if (Date.now() > deadlineMs) throw new Error(`never came true: ${probe.toString()}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

export interface Upstream {
  url: string;
  requests: { path: string; headers: IncomingMessage['headers']; body: string }[];
  /** What the next requests get. */
  answer: (req: IncomingMessage, res: ServerResponse, body: string) => void;
  close(): Promise<void>;
}

/** A provider double that answers what the test says. */
export async function startUpstream(): Promise<Upstream> {
  const upstream: Upstream = {
    url: '',
    requests: [],
    answer: (_req, res) => res.writeHead(500).end(),
    close: () => stop(server),
  };
  const server = createServer((req, res) => {
    const chunks: Buffer[] = [];
    req.on('data', (chunk: Buffer) => chunks.push(chunk));
    req.on('end', () => {
      const body = Buffer.concat(chunks).toString('utf8');
      upstream.requests.push({ path: req.url ?? '', headers: req.headers, body });
      upstream.answer(req, res, body);
    });
  });
  upstream.url = await listen(server);
  return upstream;
}

/** A wire to a port of this machine that can be pulled out and put in again. */
export async function startProxy(
  targetPort: number,
): Promise<{ port: number; start(): Promise<void>; stop(): Promise<void> }> {
  const sockets = new Set<Socket>();
  const server = createTcpServer((socket) => {
    const target = connect(targetPort, '127.0.0.1');
    for (const end of [socket, target]) {
      sockets.add(end);
      end.on('error', () => undefined);
      end.on('close', () => sockets.delete(end));
    }
    socket.pipe(target).pipe(socket);
  });
  let port = 0;
  const start = async (): Promise<void> => {
    await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
    port = (server.address() as AddressInfo).port;
  };
  await start();
  return {
    port,
    start,
    stop: async () => {
      if (!server.listening) return;
      const closed = new Promise((resolve) => server.close(resolve));
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}
