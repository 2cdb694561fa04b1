import { randomBytes } from 'node:crypto';
import { Registry } from 'prom-client';
import type { CredentialKind, CredentialRules } from '../../contracts/credentials.ts';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { newId } from '../../contracts/ids.ts';
import type { Networking } from '../../contracts/networking.ts';
import { networkingParam, resolveNetworking } from '../../contracts/networking.ts';
import type { Pool } from '../../db/pool.ts';
import { createPool } from '../../db/pool.ts';
import type { HeaderList, PolicyEngine, RequestHead } from '../../egress/decision.ts';
import { PACKAGE_HOSTS } from '../../egress/policy/package-hosts.ts';
import { Policies } from '../../egress/policy/policies.ts';
import type { ServiceAddresses } from '../../egress/services/config.ts';
import { createLogger } from '../../telemetry/logger.ts';
import type { ResolvedSecret, SecretSource } from '../../vault/source.ts';
import { testDatabase } from '../support/postgres.ts';

/** Values by credential, in place of a vault. */
export class TestSecrets implements SecretSource {
  readonly values = new Map<string, ResolvedSecret>();
  readonly held = new Map<string, readonly string[]>();
  isAway = false;

  resolve(credentialId: string): Promise<ResolvedSecret> {
    const secret = this.values.get(credentialId);
    if (this.isAway || secret === undefined) {
      return Promise.reject(new LonghaulError('credential_unavailable', `${credentialId} cannot be had`));
    }
    return Promise.resolve(secret);
  }

  invalidate(): void {
    // Nothing is kept.
  }

  hold(sessionId: string, credentialIds: readonly string[]): void {
    this.held.set(sessionId, credentialIds);
  }

  forget(sessionId: string): void {
    this.held.delete(sessionId);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

export interface GivenCredential extends Partial<CredentialRules> {
  name?: string;
  kind?: CredentialKind;
  value?: string;
  placeholder?: string;
  revoked?: boolean;
}

export interface Planted {
  id: string;
  name: string;
  placeholder: string;
  value: string;
}

export interface PolicyBed {
  pool: Pool;
  databaseUrl: string;
  secrets: TestSecrets;
  policies: Policies;
  registry: Registry;
  session(networking: unknown, teamId?: string): Promise<string>;
  sandbox(sessionId: string): Promise<string>;
  credential(sessionId: string, given: GivenCredential): Promise<Planted>;
  open(sessionId: string): Promise<PolicyEngine>;
  /** Another broker on the same database. */
  restart(options?: { holdMs?: number }): Promise<void>;
  close(): Promise<void>;
}

/** A session's rows as the api and the worker would have made them, and the policies of a broker over them. */
export async function policyBed(
  options: { holdMs?: number; packageHosts?: string[]; databaseUrl?: string; services?: ServiceAddresses } = {},
): Promise<PolicyBed> {
  const own = options.databaseUrl === undefined ? await testDatabase() : undefined;
  const database = { url: options.databaseUrl ?? own?.url ?? '' };
  const pool = createPool({ databaseUrl: database.url, applicationName: 'test', max: 6 });
  const secrets = new TestSecrets();
  const start = (holdMs: number): { registry: Registry; policies: Policies } => {
    const registry = new Registry();
    const policies = new Policies({
      pool,
      databaseUrl: database.url,
      logger: createLogger('test', process.env['LONGHAUL_TEST_LOG'] ?? 'silent'),
      registry,
      secrets,
      holdMs,
      packageHosts: options.packageHosts ?? PACKAGE_HOSTS,
      internalTargets: [{ host: '127.0.0.1', port: 4000 }],
      services: options.services ?? new Map(),
    });
    return { registry, policies };
  };
  let running = start(options.holdMs ?? 0);
  const bed: PolicyBed = {
    pool,
    databaseUrl: database.url,
    secrets,
    get policies() {
      return running.policies;
    },
    get registry() {
      return running.registry;
    },
    session: (networking, teamId = 'team-a') => makeSession(pool, networking, teamId),
    sandbox: (sessionId) => makeSandbox(pool, sessionId),
    credential: (sessionId, given) => plant(pool, secrets, sessionId, given),
    async open(sessionId) {
      return running.policies.open({ sessionId, sandboxId: await makeSandbox(pool, sessionId) });
    },
    async restart({ holdMs = options.holdMs ?? 0 } = {}) {
      await running.policies.close();
      running = start(holdMs);
    },
    async close() {
      await running.policies.close();
      await pool.end();
      await own?.drop();
    },
  };
  return bed;
}

async function makeSession(pool: Pool, given: unknown, teamId: string): Promise<string> {
  const networking: Networking = resolveNetworking(given === undefined ? undefined : networkingParam.parse(given));
  const [agentId, environmentId, sessionId] = [newId('agent'), newId('environment'), newId('session')];
  const agent = {
    name: 'Helper',
    model: { id: 'scripted' },
    harness: 'native',
    tools: [],
    skills: [],
    mcp_servers: [],
  };
  const environment = { type: 'cloud', networking, provider: 'local', packages: { type: 'packages' } };
  await pool.query(`INSERT INTO agents (id, team_id, latest_version, created_by) VALUES ($1, $2, 1, 'ada')`, [
    agentId,
    teamId,
  ]);
  await pool.query('INSERT INTO agent_versions (agent_id, version, definition) VALUES ($1, 1, $2)', [agentId, agent]);
  await pool.query(`INSERT INTO environments (id, team_id, name, config) VALUES ($1, $2, 'e', $3)`, [
    environmentId,
    teamId,
    environment,
  ]);
  await pool.query(
    `INSERT INTO sessions (id, team_id, created_by, agent_id, agent_version, agent, environment_id, environment)
     VALUES ($1, $2, 'ada', $3, 1, $4, $5, $6)`,
    [sessionId, teamId, agentId, agent, environmentId, environment],
  );
  return sessionId;
}

async function makeSandbox(pool: Pool, sessionId: string): Promise<string> {
  const id = newId('sandbox');
  await pool.query(
    `INSERT INTO sandboxes (id, session_id, generation, provider, state, lease_expires_at)
     SELECT $1, $2, coalesce(max(generation), 0) + 1, 'local', 'running', now() + interval '1 hour'
     FROM sandboxes WHERE session_id = $2`,
    [id, sessionId],
  );
  return id;
}

const list = (values: unknown[] | null | undefined): string | null => (values ? JSON.stringify(values) : null);

async function plant(pool: Pool, secrets: TestSecrets, sessionId: string, given: GivenCredential): Promise<Planted> {
  const vaultId = newId('vault');
  const credentialId = newId('credential');
  const name = given.name ?? 'GITHUB_TOKEN';
  const kind = given.kind ?? 'environment_variable';
  const value = given.value ?? `canary-${randomBytes(15).toString('hex')}xyz`;
  const placeholder = given.placeholder ?? `ghp_${randomBytes(18).toString('hex')}`;
  await pool.query(`INSERT INTO vaults (id, team_id, display_name, created_by) VALUES ($1, 'team-a', 'v', 'ada')`, [
    vaultId,
  ]);
  await pool.query(
    `INSERT INTO credentials (id, team_id, vault_id, kind, name, spec, current_version, created_by)
     VALUES ($1, 'team-a', $2, $3, $4, '{}', 1, 'ada')`,
    [credentialId, vaultId, kind, name],
  );
  await pool.query(
    `INSERT INTO session_credentials (id, session_id, credential_id, vault_id, version, name, env, kind, placeholder, hosts,
       unrestricted, locations, header_name, template, username, methods, paths, revoked_at)
     VALUES ($1, $2, $3, $4, 1, $5, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)`,
    [
      newId('sessionCredential'),
      sessionId,
      credentialId,
      vaultId,
      name,
      kind,
      placeholder,
      list(given.hosts ?? ['api.github.com']),
      given.unrestricted ?? false,
      list(given.locations ?? ['header', 'basic']),
      given.headerName ?? null,
      given.template ?? null,
      given.username ?? null,
      list(given.methods),
      list(given.paths),
      given.revoked === true ? new Date() : null,
    ],
  );
  secrets.values.set(credentialId, { value, version: 1, expiresAtMs: null });
  return { id: credentialId, name, placeholder, value };
}

/** The head of a request as the data plane gives it. */
export function head(
  url: string,
  given: { method?: string; headers?: HeaderList; isWebSocket?: boolean } = {},
): RequestHead {
  const { protocol, hostname, port, pathname, search } = new URL(url);
  const isTls = protocol === 'https:';
  const raw = url.slice(url.indexOf('//') + 2);
  const path = raw.includes('/') ? (raw.slice(raw.indexOf('/')).split('?')[0] ?? '/') : pathname;
  return {
    target: { host: hostname, port: port === '' ? (isTls ? 443 : 80) : Number(port), isTls },
    method: given.method ?? 'GET',
    path,
    query: search === '' ? null : search.slice(1),
    headers: [['host', hostname], ...(given.headers ?? [])],
    isWebSocket: given.isWebSocket ?? false,
  };
}

export const NEVER = new AbortController().signal;
