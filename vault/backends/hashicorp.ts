import { readFile } from 'node:fs/promises';
import { LIMITS } from '../../contracts/limits.ts';
import type { Clock } from '../clock.ts';
import { Outbound, OutboundError, type OutboundAnswer } from '../outbound.ts';
import { LoginKeeper, type Login } from './login.ts';
import {
  away,
  fieldOf,
  notThere,
  teamPrefix,
  versionText,
  type BackendRef,
  type BackendSecret,
  type VaultBackend,
} from './port.ts';

export type HashicorpAuth =
  | { type: 'token'; token: string }
  | { type: 'approle'; roleId: string; secretId: string; mount: string }
  | { type: 'kubernetes'; role: string; tokenFile: string; mount: string };

export interface HashicorpConfig {
  address: string;
  namespace: string | null;
  /** Of the KV version 2 engine. */
  mount: string;
  /** Path below the mount, with `{team}`. */
  prefix: string;
  auth: HashicorpAuth;
}

/** A login is used for this part of its lease, and made anew after it. */
const LEASE_PART = 0.8;

/** HashiCorp Vault or OpenBao: the KV engine, version 2, over HTTP. */
export class HashicorpBackend implements VaultBackend {
  readonly name = 'hashicorp';
  readonly #config: HashicorpConfig;
  readonly #clock: Clock;
  readonly #http = new Outbound(null);
  readonly #login: LoginKeeper;

  constructor(config: HashicorpConfig, clock: Clock) {
    this.#config = config;
    this.#clock = clock;
    this.#login = new LoginKeeper(() => this.#logIn(), clock);
  }

  async get(ref: BackendRef): Promise<BackendSecret> {
    const answer = await this.#call('GET', `data/${this.#pathOf(ref)}`, ref.path);
    const { data, metadata } = (dataOf(answer) ?? {}) as {
      data?: unknown;
      metadata?: { version?: unknown; deletion_time?: unknown };
    };
    const value = typeof data === 'object' && data !== null ? fieldOf(data as Record<string, unknown>, ref) : undefined;
    if (value === undefined) throw notThere(this.name, ref.field === null ? ref.path : `${ref.path}#${ref.field}`);
    const endsAt = typeof metadata?.deletion_time === 'string' ? Date.parse(metadata.deletion_time) : Number.NaN;
    return { value, version: versionText(metadata?.version), expiresAtMs: Number.isNaN(endsAt) ? null : endsAt };
  }

  async put(ref: BackendRef, value: string): Promise<{ version: string }> {
    const body = { data: { [ref.field ?? 'value']: value } };
    const answer = await this.#call('POST', `data/${this.#pathOf(ref)}`, ref.path, body);
    return { version: versionText((dataOf(answer) as { version?: unknown } | undefined)?.version) };
  }

  async list(teamId: string, limit: number): Promise<string[]> {
    const prefix = teamPrefix(this.#config.prefix, teamId);
    try {
      const answer = await this.#call('GET', `metadata/${encodePath(prefix)}?list=true`, prefix);
      const keys = (dataOf(answer) as { keys?: unknown } | undefined)?.keys;
      return Array.isArray(keys) ? keys.filter((key): key is string => typeof key === 'string').slice(0, limit) : [];
    } catch (error) {
      // A folder without secrets does not exist.
      if ((error as { code?: unknown }).code === 'not_found') return [];
      throw error;
    }
  }

  close(): Promise<void> {
    return this.#http.close();
  }

  #pathOf(ref: BackendRef): string {
    return encodePath(`${teamPrefix(this.#config.prefix, ref.teamId)}${ref.path}`);
  }

  /** A login that was taken back is made anew, once. */
  async #call(method: 'GET' | 'POST', route: string, what: string, body?: object): Promise<OutboundAnswer> {
    for (let isRepeat = false; ; isRepeat = true) {
      const token = await this.#login.token();
      const answer = await this.#send(method, `${this.#config.mount}/${route}`, { 'x-vault-token': token }, body);
      if (answer.status === 404) throw notThere(this.name, what);
      if (answer.status >= 200 && answer.status < 300 && !answer.isTruncated) return answer;
      if (answer.status !== 403 || this.#config.auth.type === 'token' || isRepeat) {
        throw away(this.name, answer.status === 403 ? `we may not read ${what}` : `status ${answer.status}`);
      }
      await this.#login.refused(token);
    }
  }

  async #logIn(): Promise<Login> {
    const { auth } = this.#config;
    switch (auth.type) {
      case 'token':
        return { token: auth.token, untilMs: Number.POSITIVE_INFINITY };
      case 'approle':
        return this.#exchange(auth.mount, { role_id: auth.roleId, secret_id: auth.secretId });
      case 'kubernetes': {
        // Kubernetes replaces the file before the token in it ends.
        const jwt = await readFile(auth.tokenFile, 'utf8').catch(() => {
          throw away(this.name, 'the token of the service account cannot be read');
        });
        return this.#exchange(auth.mount, { role: auth.role, jwt: jwt.trim() });
      }
    }
  }

  async #exchange(mount: string, body: object): Promise<Login> {
    const answer = await this.#send('POST', `auth/${mount}/login`, {}, body);
    const { auth } = (answer.status === 200 ? jsonOf(answer) : {}) as {
      auth?: { client_token?: unknown; lease_duration?: unknown };
    };
    if (typeof auth?.client_token !== 'string')
      throw away(this.name, `the login was refused (status ${answer.status})`);
    const leaseMs = typeof auth.lease_duration === 'number' ? auth.lease_duration * 1_000 : 0;
    // No duration is a token without end.
    const untilMs = leaseMs === 0 ? Number.POSITIVE_INFINITY : this.#clock.nowMs() + leaseMs * LEASE_PART;
    return { token: auth.client_token, untilMs };
  }

  async #send(
    method: 'GET' | 'POST',
    route: string,
    headers: Record<string, string>,
    body?: object,
  ): Promise<OutboundAnswer> {
    const { address, namespace } = this.#config;
    try {
      return await this.#http.send(`${address}/v1/${route}`, {
        method,
        headers: {
          'x-vault-request': 'true',
          ...(namespace === null ? {} : { 'x-vault-namespace': namespace }),
          ...(body === undefined ? {} : { 'content-type': 'application/json' }),
          ...headers,
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        timeoutMs: LIMITS.vaultBackendMs,
      });
    } catch (error) {
      throw error instanceof OutboundError ? away(this.name, error.message) : error;
    }
  }
}

function encodePath(text: string): string {
  return text.split('/').map(encodeURIComponent).join('/');
}

function jsonOf({ text }: OutboundAnswer): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}

function dataOf(answer: OutboundAnswer): unknown {
  return (jsonOf(answer) as { data?: unknown }).data;
}
