import { LIMITS } from '../../contracts/limits.ts';
import type { Clock } from '../clock.ts';
import { Outbound, OutboundError, type OutboundAnswer } from '../outbound.ts';
import { LoginKeeper, type Login } from './login.ts';
import {
  away,
  notThere,
  teamPrefix,
  versionText,
  type BackendRef,
  type BackendSecret,
  type VaultBackend,
} from './port.ts';

export interface InfisicalConfig {
  url: string;
  clientId: string;
  clientSecret: string;
  projectId: string;
  environment: string;
  /** Folder, with `{team}`. */
  prefix: string;
}

const LEASE_PART = 0.8;

/** Infisical, as a machine identity with universal auth. The last part of a path is the secret's name, what is before it the folder. */
export class InfisicalBackend implements VaultBackend {
  readonly name = 'infisical';
  readonly #config: InfisicalConfig;
  readonly #clock: Clock;
  readonly #http = new Outbound(null);
  readonly #login: LoginKeeper;

  constructor(config: InfisicalConfig, clock: Clock) {
    this.#config = config;
    this.#clock = clock;
    this.#login = new LoginKeeper(() => this.#logIn(), clock);
  }

  async get(ref: BackendRef): Promise<BackendSecret> {
    if (ref.field !== null) throw notThere(this.name, `${ref.path}#${ref.field}`);
    const { folder, key } = this.#placeOf(ref);
    const query = new URLSearchParams({ ...this.#project(), secretPath: folder, viewSecretValue: 'true' });
    const answer = await this.#call('GET', `secrets/${encodeURIComponent(key)}?${query.toString()}`, ref.path);
    const { secret } = jsonOf(answer) as {
      secret?: { secretValue?: unknown; version?: unknown; secretValueHidden?: unknown };
    };
    if (typeof secret?.secretValue !== 'string' || secret.secretValueHidden === true) {
      throw away(this.name, `we may not read ${ref.path}`);
    }
    return { value: secret.secretValue, version: versionText(secret.version), expiresAtMs: null };
  }

  async list(teamId: string, limit: number): Promise<string[]> {
    const folder = `/${trimmed(teamPrefix(this.#config.prefix, teamId))}`;
    const query = new URLSearchParams({ ...this.#project(), secretPath: folder, viewSecretValue: 'false' });
    const { secrets } = jsonOf(await this.#call('GET', `secrets?${query.toString()}`, folder)) as { secrets?: unknown };
    if (!Array.isArray(secrets)) return [];
    const names = secrets.map((one) => (one as { secretKey?: unknown }).secretKey);
    return names.filter((name): name is string => typeof name === 'string').slice(0, limit);
  }

  close(): Promise<void> {
    return this.#http.close();
  }

  #project(): { projectId: string; environment: string } {
    return { projectId: this.#config.projectId, environment: this.#config.environment };
  }

  #placeOf(ref: BackendRef): { folder: string; key: string } {
    const parts = `${trimmed(teamPrefix(this.#config.prefix, ref.teamId))}/${ref.path}`
      .split('/')
      .filter((part) => part !== '');
    const key = parts.pop() ?? '';
    return { folder: `/${parts.join('/')}`, key };
  }

  async #call(method: 'GET', route: string, what: string): Promise<OutboundAnswer> {
    for (let isRepeat = false; ; isRepeat = true) {
      const token = await this.#login.token();
      const answer = await this.#send(method, `/api/v4/${route}`, { authorization: `Bearer ${token}` });
      if (answer.status === 404) throw notThere(this.name, what);
      if (answer.status === 200 && !answer.isTruncated) return answer;
      if (answer.status !== 401 || isRepeat) {
        throw away(this.name, answer.status === 403 ? `we may not read ${what}` : `status ${answer.status}`);
      }
      await this.#login.refused(token);
    }
  }

  async #logIn(): Promise<Login> {
    const { clientId, clientSecret } = this.#config;
    const headers = { 'content-type': 'application/json' };
    const body = JSON.stringify({ clientId, clientSecret });
    const answer = await this.#send('POST', '/api/v1/auth/universal-auth/login', headers, body);
    const { accessToken, expiresIn } = jsonOf(answer) as { accessToken?: unknown; expiresIn?: unknown };
    if (answer.status !== 200 || typeof accessToken !== 'string') {
      throw away(this.name, `the login was refused (status ${answer.status})`);
    }
    const lifeMs = (typeof expiresIn === 'number' ? expiresIn : 60) * 1_000;
    return { token: accessToken, untilMs: this.#clock.nowMs() + lifeMs * LEASE_PART };
  }

  async #send(
    method: 'GET' | 'POST',
    route: string,
    headers: Record<string, string>,
    body?: string,
  ): Promise<OutboundAnswer> {
    try {
      const sent = { method, headers, timeoutMs: LIMITS.vaultBackendMs, ...(body === undefined ? {} : { body }) };
      return await this.#http.send(`${this.#config.url}${route}`, sent);
    } catch (error) {
      throw error instanceof OutboundError ? away(this.name, error.message) : error;
    }
  }
}

function trimmed(text: string): string {
  return text.replaceAll(/^\/+|\/+$/g, '');
}

function jsonOf({ text }: OutboundAnswer): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}
