import { stat } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { listenOn } from '../../db/listen.ts';
import { OPERATOR_TEAM_ID } from '../../contracts/key-scopes.ts';
import { isOutage, type Pool } from '../../db/pool.ts';
import { adoptApiKey } from '../../db/queries/api-keys.ts';
import {
  MODEL_ROUTES_CHANNEL,
  modelRoutesMark,
  readModelRoutes,
  type ModelPolicyRow,
  type ModelRouteRow,
} from '../../db/queries/model-routes.ts';
import type { Logger } from '../../telemetry/logger.ts';
import type { GatewayConfig } from '../config.ts';
import { SCRIPTED_MODEL } from './models.ts';
import type { RouteCompiler } from './compile.ts';
import { plainRoute, type Route } from './deployment.ts';
import type { RouteFile } from './route-file.ts';
import { layerOf, RouteTable } from './route-table.ts';

interface SourceDeps {
  pool: Pool;
  config: GatewayConfig;
  logger: Logger;
  compiler: RouteCompiler;
}

const POLL_MS = 5_000;
const RECONNECT_MS = 1_000;
/** A file that stays the same for this long has been written. */
const WRITING_MS = 100;
/** The first requests wait this long at most for routes of a database that does not answer. */
const FIRST_READ_MS = 3_000;

/**
 * Keeps the table of routes current: told by Postgres, and by a look every few seconds at what a lost notice or an
 * edited file hides. What cannot be read or understood changes nothing: the last good table stays.
 */
export class RouteSource {
  table = new RouteTable({ teams: new Map(), shared: [], allowed: new Map() });
  readonly ready: Promise<void>;
  readonly #deps: SourceDeps;
  readonly #stopping = new AbortController();
  readonly #tasks: Promise<unknown>[];
  #file: RouteFile | undefined;
  #fileMark = '';
  #fileProblem: string | undefined;
  #rows: { routes: ModelRouteRow[]; policies: ModelPolicyRow[] } = { routes: [], policies: [] };
  #rowsMark: string | undefined;
  #reading: Promise<void> | undefined;
  #isStale = false;

  constructor(deps: SourceDeps) {
    this.#deps = deps;
    this.#build();
    const first = this.#refresh();
    this.ready = Promise.race([first, sleep(FIRST_READ_MS, undefined, { ref: false })]);
    this.#tasks = [first, this.#listen(), this.#poll()];
  }

  get problems(): readonly string[] {
    return this.#fileProblem === undefined ? [] : [this.#fileProblem];
  }

  async close(): Promise<void> {
    this.#stopping.abort();
    await Promise.allSettled(this.#tasks);
  }

  /** Reads what changed. Those who ask while it runs get one more reading after it. */
  async #refresh(): Promise<void> {
    this.#isStale = true;
    this.#reading ??= (async () => {
      while (this.#isStale && !this.#stopping.signal.aborted) {
        this.#isStale = false;
        const changed = await Promise.all([this.#readFile(), this.#readRows()]);
        if (changed.includes(true)) this.#build();
      }
    })().finally(() => {
      this.#reading = undefined;
    });
    await this.#reading;
  }

  async #readFile(): Promise<boolean> {
    const { config, logger } = this.#deps;
    if (config.configFile === undefined) return false;
    try {
      const mark = await this.#settledMark(config.configFile);
      if (mark === this.#fileMark) return false;
      this.#fileMark = mark;
      const { readRouteFile } = await import('./route-file.ts');
      this.#file = await readRouteFile(config.configFile, (name) => config.credentials.get(name));
      this.#fileProblem = undefined;
      const { format, ignored, file } = this.#file;
      logger.info({ format, routes: file.routes.length, ignored }, 'gateway configuration read');
      await this.#adoptMasterKey(this.#file.masterKeyVariable);
      return true;
    } catch (error) {
      const problem = `the configuration file is not used as it is now: ${reasonOf(error)}`;
      if (problem !== this.#fileProblem) logger.error({ file: config.configFile, reason: reasonOf(error) }, problem);
      this.#fileProblem = problem;
      return false;
    }
  }

  /** The mark of a file nobody is just writing: half a file can look like a whole one with less in it. */
  async #settledMark(file: string): Promise<string> {
    let mark = await markOf(file);
    while (mark !== this.#fileMark && this.#fileMark !== '' && !this.#stopping.signal.aborted) {
      await pause(WRITING_MS, this.#stopping.signal);
      const again = await markOf(file);
      if (again === mark) break;
      mark = again;
    }
    return mark;
  }

  /** Clients of LiteLLM go on with the key they have. Only its hash is stored, as of every key. */
  async #adoptMasterKey(variable: string | undefined): Promise<void> {
    const key = variable === undefined ? undefined : this.#deps.config.credentials.get(variable);
    if (key === undefined) return;
    try {
      await adoptApiKey(this.#deps.pool, key, {
        name: 'litellm-master-key',
        userId: 'admin',
        teamId: OPERATOR_TEAM_ID,
      });
    } catch (error) {
      // Another look at the file tries again.
      this.#fileMark = '';
      this.#deps.logger.warn({ err: error }, 'the master key of the configuration file is not usable yet');
    }
  }

  async #readRows(): Promise<boolean> {
    const { pool, logger } = this.#deps;
    try {
      const mark = await modelRoutesMark(pool);
      if (mark === this.#rowsMark) return false;
      this.#rows = await readModelRoutes(pool);
      this.#rowsMark = mark;
      return true;
    } catch (error) {
      const isAway = isOutage(error);
      logger.warn(isAway ? {} : { err: error }, 'model routes were not read; the last ones stay');
      return false;
    }
  }

  #build(): void {
    const { config, compiler } = this.#deps;
    const operator = { kind: 'operator' } as const;
    const environment = config.upstreams.flatMap(({ name, deployments }) =>
      deployments.map((spec) => plainRoute(name, compiler.deployment(spec, null, operator))),
    );
    if (config.scripted) {
      const scripted = { provider: 'scripted', model: SCRIPTED_MODEL } as const;
      environment.push(plainRoute(SCRIPTED_MODEL, compiler.deployment(scripted, null, operator)));
    }
    const file = this.#file?.file;
    const fileLayer = layerOf(file?.routes.map((spec) => compiler.compile(spec, operator)) ?? [], file?.aliases);
    const byTeam = new Map<string, Route[]>();
    for (const { teamId, name, spec } of this.#rows.routes) {
      const route = compiler.compile({ name, ...spec }, { kind: 'team', teamId });
      byTeam.set(teamId, [...(byTeam.get(teamId) ?? []), route]);
    }
    this.table = new RouteTable({
      teams: new Map(Array.from(byTeam, ([teamId, routes]) => [teamId, layerOf(routes)])),
      shared: [fileLayer, layerOf(environment)],
      allowed: this.#allowed(),
    });
    compiler.finish();
  }

  #allowed(): Map<string, string[][]> {
    const lists = new Map<string, string[][]>();
    const add = (teamId: string, list: string[] | null): void => {
      if (list !== null) lists.set(teamId, [...(lists.get(teamId) ?? []), list]);
    };
    for (const [teamId, { allowed_models }] of Object.entries(this.#file?.file.teams ?? {}))
      add(teamId, allowed_models);
    for (const { teamId, allowedModels } of this.#rows.policies) add(teamId, allowedModels);
    return lists;
  }

  async #listen(): Promise<void> {
    const { signal } = this.#stopping;
    const databaseUrl = this.#deps.pool.options.connectionString;
    if (databaseUrl === undefined) return;
    while (!signal.aborted) {
      const told = (): void => void this.#refresh();
      const options = { applicationName: 'longhaul-gateway-routes', signal, onReady: told };
      // A connection that cannot be had is no news: the poll says so when it matters.
      await listenOn(databaseUrl, [MODEL_ROUTES_CHANNEL], told, options).catch(() => undefined);
      await pause(RECONNECT_MS, signal);
    }
  }

  async #poll(): Promise<void> {
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      await pause(POLL_MS, signal);
      if (!signal.aborted) await this.#refresh();
    }
  }
}

async function markOf(file: string): Promise<string> {
  const { mtimeMs, size } = await stat(file);
  return `${mtimeMs}/${size}`;
}

async function pause(waitMs: number, signal: AbortSignal): Promise<void> {
  await sleep(waitMs, undefined, { signal, ref: false }).catch(() => undefined);
}

/** The field and what is wrong with it: never a value, which could be a key somebody wrote there. */
function reasonOf(error: unknown): string {
  const { message, field, code } = error as Error & { field?: string; code?: string };
  if (code === 'ENOENT') return 'it does not exist';
  if ((error as Error).name === 'YAMLParseError') return `it is no YAML (${code ?? 'broken'})`;
  return field === undefined ? message : `${field}: ${message}`;
}
