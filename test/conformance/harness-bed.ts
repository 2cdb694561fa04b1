import { createHash, randomBytes } from 'node:crypto';
import { mkdtemp, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type {
  HarnessDriver,
  HarnessHandle,
  HarnessSpec,
  Placement,
  ResumeToken,
  TurnSpec,
} from '../../activities/harness/port.ts';
import { findSessionToken } from '../../db/queries/session-tokens.ts';
import { openTurn } from '../../db/queries/turns.ts';
import { findVirtualKey } from '../../db/queries/virtual-keys.ts';
import { createSession, mintKey, openTestBed, type TestBed } from '../gateway/support.ts';
import { startGatewayProcess, type GatewayProcess } from '../gateway/gateway-process.ts';
import { RecordingHost, watched, type Ending, type TurnLimits } from './harness-host.ts';
import { ModelTap, type ModelCall } from './harness-tap.ts';
import { ToolServer, type Gate, type ToolPlace } from './harness-tools.ts';

/** Ways a model can fail, as the scripted model plays them. */
export type ModelFault =
  '400' | '401' | '429-endless' | '429-then-ok' | '500-then-ok' | 'bad-sse' | 'html' | 'cut' | 'no-reply';

/** What the suite needs of a driver and its harness. */
export interface HarnessUnderTest {
  /** A driver as a new worker has it: nothing of earlier ones is in its memory. */
  driver(): HarnessDriver;
  placement: Placement;
  hands: HarnessSpec['hands'];
  agent?: string;
  /** How the model calls the shell: the harness's own, or ours as the harness names it. */
  shell: { tool: string; input(command: string): Record<string, unknown> };
  /** Changes the spec to what this bed needs (other folders, a sandbox). */
  prepare?(spec: HarnessSpec, world: HarnessWorld): Promise<HarnessSpec>;
  /** A file of the session's working directory, or undefined. Default: on this machine. */
  readFile?(spec: HarnessSpec, name: string): Promise<string | undefined>;
  /** SIGKILL for every process of the harness that serves the session; resolves when they are gone. */
  kill(spec: HarnessSpec): Promise<void>;
  /** Processes of the harness whose environment is looked at for secrets. */
  pids(spec: HarnessSpec): Promise<number[]>;
  /** How a fault ends here where it is not as the suite has it. */
  faults?: Partial<Record<ModelFault, FaultExpectation>>;
  /** More than these retries of the harness end the turn; 2 without it. */
  retries?: number;
  close(): Promise<void>;
}

/** The class a fault ends in; `completed` when the harness gets over it. `isIdle`: the harness hangs, the watchdog ends it. */
export type FaultExpectation = { ends: 'completed' } | { ends: string[]; isIdle?: boolean };

/** A variable of this process with a value that no harness may ever see. */
export const CANARY = `canary-${randomBytes(16).toString('hex')}`;
const SECOND_MODEL = 'scripted-second';
/** Nothing that works is silent for so long, however busy the machine is. */
const PATIENT: TurnLimits = { idleMs: 150_000, retries: 50 };

/** The gateway as a process of its own, the wire to it, and our tools. */
export class HarnessWorld {
  readonly models = ['scripted', SECOND_MODEL] as const;
  readonly #parts: { bed: TestBed; gateway: GatewayProcess; tap: ModelTap; tools: ToolServer; folder: string };
  readonly #talks: Talk[] = [];

  private constructor(parts: {
    bed: TestBed;
    gateway: GatewayProcess;
    tap: ModelTap;
    tools: ToolServer;
    folder: string;
  }) {
    this.#parts = parts;
  }

  static async open(): Promise<HarnessWorld> {
    const folder = await mkdtemp(path.join(tmpdir(), 'harness-'));
    const bed = await openTestBed();
    const routes = path.join(folder, 'gateway.yaml');
    await writeFile(routes, JSON.stringify({ aliases: { [SECOND_MODEL]: 'scripted' } }));
    const gateway = await startGatewayProcess({
      DATABASE_URL: bed.databaseUrl,
      LONGHAUL_SCRIPTED: '1',
      LONGHAUL_GATEWAY_CONFIG: routes,
      // What a provider's key looks like to the gateway: nobody else may have it.
      ANTHROPIC_API_KEY: CANARY,
    });
    process.env['OPENAI_API_KEY'] = CANARY;
    return new HarnessWorld({
      bed,
      gateway,
      tap: await ModelTap.start(gateway.url, (key) => sessionOfKey(bed, key)),
      tools: await ToolServer.start(async (token) => (await findSessionToken(bed.pool, token, 'mcp'))?.sessionId),
      folder,
    });
  }

  get tap(): ModelTap {
    return this.#parts.tap;
  }

  get databaseUrl(): string {
    return this.#parts.bed.databaseUrl;
  }

  get pool(): TestBed['pool'] {
    return this.#parts.bed.pool;
  }

  putTools({ mcpToken, spec }: Talk, place: ToolPlace): void {
    for (const name of [mcpToken, spec.sessionId]) this.tools.put(name, place);
  }

  get tools(): ToolServer {
    return this.#parts.tools;
  }

  /** A session with a key of its own; `key` puts another one in its place. */
  async talk(under: HarnessUnderTest, change: Partial<HarnessSpec> = {}): Promise<Talk> {
    const { bed, tap, tools, folder } = this.#parts;
    const sessionId = await createSession(bed.pool);
    // Keys of harnesses follow the turn that runs.
    await openTurn(bed.pool, sessionId, 1, 'scripted');
    const key = change.model?.key ?? (await mintKey(bed.pool, { sessionId }));
    const token = randomBytes(16).toString('hex');
    const [cwd, stateDir] = [path.join(folder, sessionId, 'work'), path.join(folder, sessionId, 'state')];
    for (const dir of [cwd, stateDir]) await mkdir(dir, { recursive: true });
    const spec: HarnessSpec = {
      sessionId,
      placement: under.placement,
      cwd,
      stateDir,
      systemPrompt: null,
      mcpServers: [{ name: 'longhaul', url: tools.url, headers: { authorization: `Bearer ${token}` } }],
      hands: under.hands,
      skills: [],
      env: {},
      ...(under.agent === undefined ? {} : { agent: under.agent }),
      ...change,
      model: { baseUrl: tap.url, key },
    };
    const prepared = under.prepare === undefined ? spec : await under.prepare(spec, this);
    const talk = new Talk(this, under, prepared, { key, token });
    this.#talks.push(talk);
    return talk;
  }

  /** How often the scripted model was asked by the session, over all steps. */
  async asked(sessionId: string): Promise<number> {
    const { bed, gateway } = this.#parts;
    const key = await mintKey(bed.pool, { sessionId });
    const answer = await fetch(`${gateway.url}/scripted/calls?session=${sessionId}`, { headers: { 'x-api-key': key } });
    const { data } = (await answer.json()) as { data: { asked: number }[] };
    return data.reduce((sum, { asked }) => sum + asked, 0);
  }

  async close(): Promise<void> {
    const { bed, gateway, tap, tools, folder } = this.#parts;
    for (const talk of this.#talks) await talk.close().catch(() => undefined);
    await tools.close();
    await tap.close();
    await gateway.stop();
    await bed.close();
    await rm(folder, { recursive: true, force: true });
  }
}

/** A turn that runs. */
export interface RunningTurn {
  host: RecordingHost;
  ending: Promise<Ending>;
  cancel(): void;
}

export interface TurnOptions {
  turn: number;
  attempt?: number;
  resumed?: boolean;
  model?: string;
  continuation?: string;
  gate?: Gate;
  limits?: TurnLimits;
}

/** One session as a worker has it, with what outlives the worker: spec and resume token. */
export class Talk {
  readonly spec: HarnessSpec;
  readonly key: string;
  readonly mcpToken: string;
  token: ResumeToken | null = null;
  driver: HarnessDriver;
  #handle: HarnessHandle | undefined;
  readonly #world: HarnessWorld;
  readonly #under: HarnessUnderTest;

  constructor(
    world: HarnessWorld,
    under: HarnessUnderTest,
    spec: HarnessSpec,
    secrets: { key: string; token: string },
  ) {
    this.#world = world;
    this.#under = under;
    this.spec = spec;
    this.key = secrets.key;
    this.mcpToken = secrets.token;
    this.driver = under.driver();
    // Harnesses look for tools when they open a session; outside a turn nothing may be called.
    world.putTools(this, { cwd: spec.cwd, gate: noTurn, park: () => undefined });
  }

  get handle(): HarnessHandle {
    if (this.#handle === undefined) throw new Error('the session was not opened');
    return this.#handle;
  }

  async open(): Promise<HarnessHandle> {
    this.#handle = await this.driver.open(this.spec, this.token, AbortSignal.timeout(150_000));
    this.token = JSON.parse(JSON.stringify(this.#handle.resumeToken)) as ResumeToken;
    return this.#handle;
  }

  /** As after the death of the worker: another driver, which knows the spec and what was stored. */
  async reopen(): Promise<HarnessHandle> {
    this.driver = this.#under.driver();
    return this.open();
  }

  start(text: string, options: TurnOptions): RunningTurn {
    const { turn, attempt = 1, gate = () => Promise.reject(new Error('nothing was to be asked')) } = options;
    const place: ToolPlace = {
      cwd: this.spec.cwd,
      gate: (call) => host.whileWaiting(() => gate(call)),
      park: () => host.park(),
    };
    const host = new RecordingHost({
      permission: gate,
      callTool: ({ tool, input }) => this.#world.tools.call(place, tool, input),
      checkpoint: (token) => void (this.token = token),
    });
    this.#world.putTools(this, place);
    const spec: TurnSpec = {
      turn,
      attempt,
      resumed: options.resumed ?? false,
      messageId: createHash('sha256').update(`${this.spec.sessionId}/${turn}`).digest('hex').slice(0, 32),
      model: options.model ?? 'scripted',
      content: [{ type: 'text', text }],
      continuation: options.continuation ?? null,
    };
    const cancel = new AbortController();
    const ending = watched(host, options.limits ?? PATIENT, cancel, (signal) =>
      this.driver.runTurn(this.handle, spec, host, signal),
    );
    return { host, ending, cancel: () => cancel.abort() };
  }

  async run(text: string, options: TurnOptions): Promise<{ host: RecordingHost; ending: Ending }> {
    const { host, ending } = this.start(text, options);
    return { host, ending: await ending };
  }

  /** What the harness asked the model, oldest first. */
  calls(): ModelCall[] {
    return this.#world.tap.of(this.spec.sessionId);
  }

  bodies(): string[] {
    return this.calls().map((call) => call.body);
  }

  asked(): Promise<number> {
    return this.#world.asked(this.spec.sessionId);
  }

  /** Lines of a file that commands write in the working directory. */
  async lines(name: string): Promise<string[]> {
    const under = this.#under;
    const text = await (under.readFile === undefined ? readLocal(this.spec, name) : under.readFile(this.spec, name));
    return (text ?? '').split('\n').filter((line) => line !== '');
  }

  close(forget = true): Promise<void> {
    return this.driver.close(this.spec, this.token, forget, AbortSignal.timeout(60_000));
  }
}

async function sessionOfKey({ pool }: TestBed, key: string): Promise<string | undefined> {
  return (await findVirtualKey(pool, key))?.attribution.sessionId ?? undefined;
}

function noTurn(): Promise<never> {
  return Promise.reject(new Error('no turn runs'));
}

async function readLocal(spec: HarnessSpec, name: string): Promise<string | undefined> {
  return readFile(path.join(spec.cwd, name), 'utf8').catch(() => undefined);
}
