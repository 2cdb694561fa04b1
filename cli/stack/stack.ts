import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { OPERATOR_TEAM_ID } from '../../contracts/key-scopes.ts';
import { ensureDatabase } from '../../db/databases.ts';
import { migrate } from '../../db/migrate.ts';
import { createPool } from '../../db/pool.ts';
import { createApiKey, findApiKey } from '../../db/queries/api-keys.ts';
import { readTemporalTarget } from '../../temporal/config.ts';
import { inheritedEnvironment, type CliConfig } from '../config.ts';
import { messageOf, seconds } from '../output.ts';
import {
  homePaths,
  readStackState,
  removeDevJson,
  writeDevJson,
  writePrivateFile,
  writeStackState,
  type DevJson,
  type HomePaths,
  type Role,
  type StackState,
} from './home.ts';
import { endHarnessProcesses, killHarnessProcesses } from '../../activities/harness/host/registry.ts';
import { stopAllSandboxes } from '../../activities/sandbox/index.ts';
import { endLeftovers } from './leftovers.ts';
import { LogFile } from './logs.ts';
import { PortReservations } from './ports.ts';
import { openCluster, postgresUrl } from './postgres.ts';
import { identify } from './processes.ts';
import { apiRole, egressRole, postgresRole, temporalRole, workerRole } from './roles.ts';
import { SupervisedProcess, type SupervisedOptions } from './supervised.ts';
import { DEFAULT_PORTS } from './stack-ports.ts';
import { requireTemporal } from './temporal-binary.ts';
import { isTemporalReady } from './temporal-server.ts';
import { splitKeys } from './vault-keys.ts';

const DATABASE = 'longhaul';

interface StackOptions {
  config: CliConfig;
  /** An explicit api port: taken is an error then, not a reason to take the next one. */
  apiPort: number | undefined;
  say: (line: string) => void;
}

interface TemporalTarget {
  address: string;
  namespace: string;
  uiUrl: string | null;
}

/** All processes of one home: starts them in order, keeps them running, stops them in the reverse order. */
export class Stack {
  readonly #config: CliConfig;
  readonly #options: StackOptions;
  readonly #paths: HomePaths;
  readonly #state: StackState;
  readonly #ports = new PortReservations();
  readonly #processes = new Map<Role, SupervisedProcess>();
  readonly #logs: LogFile[] = [];
  #devJson: DevJson | undefined;
  #rotation: NodeJS.Timeout | undefined;
  #stopping = false;

  constructor(options: StackOptions) {
    this.#options = options;
    this.#config = options.config;
    this.#paths = homePaths(options.config.home);
    this.#state = readStackState(this.#paths);
  }

  /** Brings everything up and publishes the handle. */
  async start(): Promise<DevJson> {
    removeDevJson(this.#paths);
    await endLeftovers(this.#state, this.#options.say);
    this.#state.processes = {};
    this.#noteProcess('supervisor', process.pid);
    // Temporal first: making a database cluster keeps this process busy, and both fit side by side.
    const temporalStarting = this.#startTemporal();
    const databaseStarting = this.#startDatabase();
    const [databaseUrl, temporal] = await all(databaseStarting, temporalStarting);
    const apiKey = await this.#ensureApiKey(databaseUrl);
    const apiPort = await this.#choosePort('api', this.#options.apiPort);
    const apiUrl = `http://127.0.0.1:${apiPort}`;
    const egressPort = await this.#choosePort('egress');
    const egressUrl = `http://127.0.0.1:${egressPort}`;
    const portsPort = await this.#choosePort('ports');
    const found = this.#egressOf(egressPort, portsPort, apiUrl);
    const wanted = { ...this.#environment(databaseUrl, temporal, apiUrl, apiPort), ...found };
    const { shared: env, api, egress } = splitKeys(wanted, this.#paths);
    await all(
      this.#startRole('egress', egressRole(this.#log('egress'), egressUrl, env, egress)),
      this.#startRole('api', apiRole({ log: this.#log('api'), apiUrl, env, keys: api })),
      this.#startRole('worker', workerRole(this.#log('worker'), env)),
    );
    this.#devJson = {
      apiUrl,
      apiKey,
      gatewayUrl: apiUrl,
      egressUrl,
      temporalAddress: temporal.address,
      temporalNamespace: temporal.namespace,
      temporalUiUrl: temporal.uiUrl,
      databaseUrl,
      pids: this.#pids(),
    };
    writeDevJson(this.#paths, this.#devJson);
    this.#rotation = setInterval(() => this.#logs.forEach((log) => log.rotate()), 30_000);
    this.#rotation.unref();
    return this.#devJson;
  }

  /** Ends everything in order: whoever uses a server ends before that server. */
  async stop(): Promise<void> {
    this.#stopping = true;
    clearInterval(this.#rotation);
    for (const role of ['worker', 'api', 'egress', 'temporal', 'postgres'] as const) {
      const supervised = this.#processes.get(role);
      if (supervised === undefined) continue;
      const startedMs = Date.now();
      await supervised.stop();
      this.#options.say(`${role} stopped (${seconds(Date.now() - startedMs)})`);
      // After the worker, which would wake them again.
      if (role !== 'worker') continue;
      stopAllSandboxes(this.#paths.sandboxes);
      await endHarnessProcesses(this.#paths.home);
    }
    this.#cleanUp();
  }

  /** Ends everything at once. */
  kill(): void {
    for (const supervised of this.#processes.values()) supervised.kill();
    stopAllSandboxes(this.#paths.sandboxes);
    killHarnessProcesses(this.#paths.home);
    this.#cleanUp();
  }

  #cleanUp(): void {
    removeDevJson(this.#paths);
    this.#state.processes = {};
    writeStackState(this.#paths, this.#state);
    this.#ports.release();
  }

  async #startDatabase(): Promise<string> {
    const given = this.#config.databaseUrl;
    const startedMs = Date.now();
    if (given !== undefined) {
      await migrate(given);
      this.#options.say(`postgres  given by DATABASE_URL, migrated (${seconds(Date.now() - startedMs)})`);
      return given;
    }
    const port = await this.#choosePort('postgres');
    const cluster = openCluster({ dataDir: this.#paths.postgresData, passwordFile: this.#paths.postgresPassword });
    await this.#startRole('postgres', postgresRole(this.#log('postgres'), cluster, port));
    await ensureDatabase(postgresUrl(cluster, port, 'postgres'), DATABASE);
    const url = postgresUrl(cluster, port, DATABASE);
    await migrate(url);
    return url;
  }

  async #startTemporal(): Promise<TemporalTarget> {
    const { temporalAddress, temporalNamespace, temporalUiUrl } = this.#config;
    if (temporalAddress !== undefined) return this.#useTemporal();
    const binary = await requireTemporal(this.#config);
    const port = await this.#choosePort('temporal');
    const uiPort = await this.#choosePort('temporalUi');
    const role = temporalRole({
      log: this.#log('temporal'),
      binary: binary.path,
      port,
      uiPort,
      home: this.#paths.home,
      namespace: temporalNamespace,
      // The dev server makes its schema only in a new file, so another version gets another file.
      databaseFile: path.join(this.#paths.home, `temporal-${binary.serverVersion}.db`),
    });
    await this.#startRole('temporal', role);
    return {
      address: `127.0.0.1:${port}`,
      namespace: temporalNamespace,
      uiUrl: temporalUiUrl ?? `http://127.0.0.1:${uiPort}`,
    };
  }

  /** A server of the user's; the worker adds the search attributes it lacks. */
  async #useTemporal(): Promise<TemporalTarget> {
    const { connection, namespace } = readTemporalTarget(inheritedEnvironment());
    try {
      await isTemporalReady(connection, namespace);
    } catch (error) {
      const message = `No Temporal at ${connection.address}: ${messageOf(error)}`;
      throw new LonghaulError('temporal_unavailable', message, { cause: error });
    }
    this.#options.say(`temporal  given by TEMPORAL_ADDRESS: ${connection.address}`);
    return { address: connection.address, namespace, uiUrl: this.#config.temporalUiUrl ?? null };
  }

  async #ensureApiKey(databaseUrl: string): Promise<string> {
    const pool = createPool({ databaseUrl, applicationName: 'longhaul-dev', max: 1 });
    try {
      const file = this.#paths.apiKey;
      const kept = existsSync(file) ? readFileSync(file, 'utf8').trim() : '';
      if (kept !== '' && (await findApiKey(pool, kept)) !== undefined) return kept;
      const { key } = await createApiKey(pool, { name: 'dev', userId: 'dev', teamId: OPERATOR_TEAM_ID });
      writePrivateFile(file, `${key}\n`);
      return key;
    } finally {
      await pool.end();
    }
  }

  #environment(databaseUrl: string, temporal: TemporalTarget, apiUrl: string, apiPort: number): NodeJS.ProcessEnv {
    // Credentials meant for a cluster elsewhere would keep everybody out of our own plain server.
    const isOwnTemporal = this.#config.temporalAddress === undefined;
    const inherited = Object.entries(inheritedEnvironment()).filter(
      ([name]) => !(isOwnTemporal && name.startsWith('TEMPORAL_')),
    );
    return {
      ...Object.fromEntries(inherited),
      DATABASE_URL: databaseUrl,
      TEMPORAL_ADDRESS: temporal.address,
      TEMPORAL_NAMESPACE: temporal.namespace,
      LONGHAUL_HOME: this.#paths.home,
      LONGHAUL_API_HOST: '127.0.0.1',
      LONGHAUL_API_PORT: String(apiPort),
      LONGHAUL_PUBLIC_URL: this.#config.publicUrl ?? apiUrl,
      LONGHAUL_GATEWAY_URL: apiUrl,
      LONGHAUL_SCRIPTED: '1',
      // On this machine everybody with a key is its owner.
      LONGHAUL_GATEWAY_HOSTS: this.#config.gatewayHosts ?? '*',
      LONGHAUL_LOG_LEVEL: this.#config.logLevel ?? 'info',
    };
  }

  /** How everybody finds the broker. The token stays in its file: what is in an environment, children inherit. */
  #egressOf(port: number, portsPort: number, apiUrl: string): NodeJS.ProcessEnv {
    return {
      LONGHAUL_EGRESS_PORT: String(port),
      LONGHAUL_EGRESS_URL: `http://127.0.0.1:${port}`,
      LONGHAUL_EGRESS_TOKEN_FILE: this.#paths.egressToken,
      // The api of a local stack is its gateway too.
      LONGHAUL_EGRESS_SERVICES: `gateway=${apiUrl} mcp=${apiUrl}`,
      LONGHAUL_PORTS_URL: this.#config.portsUrl ?? `http://localhost:${portsPort}`,
      LONGHAUL_PORTS_LISTEN: `127.0.0.1:${portsPort}`,
    };
  }

  async #startRole(role: Role, options: Omit<SupervisedOptions, 'onSpawn' | 'say'>): Promise<void> {
    if (this.#stopping) throw new LonghaulError('internal', 'The start was interrupted');
    const startedMs = Date.now();
    const supervised = new SupervisedProcess({
      ...options,
      say: this.#options.say,
      onSpawn: (identity) => this.#noteProcess(role, identity.pid),
    });
    this.#processes.set(role, supervised);
    await supervised.start();
    this.#options.say(`${role.padEnd(9)} ready (${seconds(Date.now() - startedMs)})`);
  }

  #noteProcess(role: Role, pid: number): void {
    const identity = identify(pid);
    if (identity === null) return;
    this.#state.processes[role] = identity;
    writeStackState(this.#paths, this.#state);
    if (this.#devJson === undefined) return;
    this.#devJson = { ...this.#devJson, pids: this.#pids() };
    writeDevJson(this.#paths, this.#devJson);
  }

  #pids(): DevJson['pids'] {
    const pidOf = (role: Role): number | null => this.#state.processes[role]?.pid ?? null;
    return {
      supervisor: pidOf('supervisor'),
      api: pidOf('api'),
      gateway: pidOf('api'),
      worker: pidOf('worker'),
      egress: pidOf('egress'),
      temporal: pidOf('temporal'),
      postgres: pidOf('postgres'),
    };
  }

  #log(role: Role): LogFile {
    const log = new LogFile(this.#paths.logs, role);
    this.#logs.push(log);
    return log;
  }

  /** The port asked for, else the one of the last run, else the first free one from the default on. */
  async #choosePort(name: keyof typeof DEFAULT_PORTS, wanted?: number): Promise<number> {
    if (wanted !== undefined && !(await this.#ports.take(wanted))) {
      throw new LonghaulError('setup_required', `Port ${wanted} is taken: choose another one or leave --port away`);
    }
    const last = this.#state.ports[name];
    const again = wanted ?? (last !== undefined && (await this.#ports.take(last)) ? last : undefined);
    const port = again ?? (await this.#ports.takeFrom(DEFAULT_PORTS[name]));
    if (wanted === undefined && port !== (last ?? DEFAULT_PORTS[name])) {
      this.#options.say(`${name} uses port ${port}: ${last ?? DEFAULT_PORTS[name]} is taken`);
    }
    this.#state.ports[name] = port;
    writeStackState(this.#paths, this.#state);
    return port;
  }
}

/** Like Promise.all, but it settles only when all have: nothing is left starting while we clean up. */
async function all<T extends Promise<unknown>[]>(...starting: T): Promise<{ [K in keyof T]: Awaited<T[K]> }> {
  const results = await Promise.allSettled(starting);
  const failed = results.find((result) => result.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
  return Promise.all(starting);
}
