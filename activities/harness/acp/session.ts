import { methods, PROTOCOL_VERSION, RequestError, type SessionUpdate } from '@agentclientprotocol/sdk';
import { setTimeout as delay } from 'node:timers/promises';
import { within } from '../../../contracts/abort.ts';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import type { HarnessSpec } from '../port.ts';
import { AcpConnection, type Answer } from './connection.ts';
import type { AcpRecipe } from './recipes.ts';
import type { AcpToken } from './token.ts';
import type { StdioPlace } from '../host/stdio.ts';

/** What a driver needs to start an agent. */
export interface AgentParts {
  recipe: AcpRecipe;
  spec: HarnessSpec;
  place: StdioPlace;
  /** Program and arguments. */
  argv: readonly string[];
}

type Fields = Record<string, unknown>;

const REQUEST_MS = 120_000;
const REASON_CHARS = 1_000;
/** Programs are found where systems have them, and nothing of the worker's environment is given on. */
const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** The folder that is the agent's HOME: its settings and its sessions. */
export function homeOf(spec: HarnessSpec): string {
  return `${spec.stateDir}/home`;
}

/** A session in an agent that runs. */
export class AcpSession {
  readonly parts: AgentParts;
  readonly connection: AcpConnection;
  readonly token: AcpToken;
  /** What the agent repeated of the session's user messages when it loaded it; undefined when it was not loaded. */
  history: string[] | undefined;
  /** User messages that are in the agent's memory, as far as they are known. */
  prompts = 0;
  /** Messages that this process was sent. */
  readonly sent = new Set<string>();

  constructor(parts: AgentParts, connection: AcpConnection, token: AcpToken) {
    this.parts = parts;
    this.connection = connection;
    this.token = token;
  }

  get sessionId(): string {
    const { sessionId } = this.token;
    if (sessionId === null) throw new LonghaulError('harness_unavailable', 'the agent has no session yet');
    return sessionId;
  }

  /** Starts the agent's process and opens the session in it, a new one or that of the token. */
  static async start(parts: AgentParts, token: AcpToken, model: string, signal: AbortSignal): Promise<AcpSession> {
    const { recipe, spec, place } = parts;
    await place.end(spec.sessionId, signal);
    const home = homeOf(spec);
    for (const { path, content } of recipe.files({ spec, model })) {
      await place.writeFile(`${home}/${path}`, Buffer.from(content), signal);
    }
    // A sandbox knows where its programs are, and the way to the broker.
    const base = spec.sandbox?.env ?? { PATH, LANG: 'C.UTF-8' };
    const env = { ...base, ...spec.env, HOME: home, ...recipe.env({ spec, model, home }) };
    const process = await place.start({ marker: spec.sessionId, argv: [...parts.argv], env, cwd: spec.cwd }, signal);
    const connection = new AcpConnection(process, { nextId: token.nextRequestId, readTo: 0 });
    const started = { ...token, process: process.ref, model: recipe.model === 'process' ? model : null };
    const session = new AcpSession(parts, connection, started);
    try {
      await within(signal, REQUEST_MS, (limit) => session.#open(limit));
      return session;
    } catch (error) {
      connection.release();
      await place.end(spec.sessionId, AbortSignal.timeout(REQUEST_MS));
      throw unavailable(recipe.name, error, spec.model.key);
    }
  }

  /** The session in a process that an earlier worker started; undefined when it is gone. */
  static async attach(parts: AgentParts, token: AcpToken, signal: AbortSignal): Promise<AcpSession | undefined> {
    if (token.process === null || token.sessionId === null) return undefined;
    const { turn } = token;
    const from = turn === null || turn.isOver ? token.readTo : turn.readFrom;
    const process = await parts.place.attach(token.process, from, signal);
    if (process === undefined) return undefined;
    const connection = new AcpConnection(process, { nextId: token.nextRequestId, readTo: from });
    const session = new AcpSession(parts, connection, structuredClone(token));
    if (turn !== null) {
      session.sent.add(turn.messageId);
      session.prompts = turn.promptsBefore + 1;
    }
    return session;
  }

  /** What another worker needs, as it is now. */
  current(): AcpToken {
    this.token.nextRequestId = this.connection.nextId;
    this.token.readTo = this.connection.readTo;
    return this.token;
  }

  /** Tells the agent its model over whatever it offers for that. */
  async setModel(model: string): Promise<void> {
    if (this.token.model === model) return;
    const { sessionId } = this;
    const { modelOption: configId } = this.token;
    if (configId !== null) {
      const params = { sessionId, configId, value: model };
      await this.connection.request(methods.agent.session.setConfigOption, params);
    } else await this.connection.request('session/set_model', { sessionId, modelId: model });
    this.token.model = model;
  }

  async #open(signal: AbortSignal): Promise<void> {
    const { recipe } = this.parts;
    const hello = await this.#ask(signal, methods.agent.initialize, {
      protocolVersion: PROTOCOL_VERSION,
      clientCapabilities: { fs: { readTextFile: false, writeTextFile: false }, terminal: false },
      clientInfo: { name: 'longhaul', version: '1' },
    });
    if (hello['protocolVersion'] !== PROTOCOL_VERSION) {
      throw new LonghaulError('harness_invalid', `${recipe.name} does not speak version ${PROTOCOL_VERSION} of ACP`);
    }
    if (recipe.authMethod !== null) {
      await this.#ask(signal, methods.agent.authenticate, { methodId: recipe.authMethod });
    }
    const can = (hello['agentCapabilities'] ?? {}) as Fields;
    const where = { cwd: this.parts.spec.cwd, mcpServers: this.#mcpServers(can) };
    // Some agents write a session down with its first turn only, and nobody misses one without.
    const isUnsaved = recipe.loadsAfterMs > 0 && this.token.turn === null;
    const isNew = this.token.sessionId === null || isUnsaved;
    if (!isNew && (await this.#reload(signal, can, where))) return;
    await this.#create(signal, where);
  }

  async #create(signal: AbortSignal, where: Fields): Promise<void> {
    const made = await this.#ask(signal, methods.agent.session.new, where);
    if (typeof made['sessionId'] !== 'string') throw new Error('it made a session without an id');
    this.token.sessionId = made['sessionId'];
    this.token.createdAtMs = Date.now();
    this.token.modelOption = modelOption(made);
  }

  /** False when the agent died before it had written its new session down: nobody misses that one. */
  async #reload(signal: AbortSignal, can: Fields, where: Fields): Promise<boolean> {
    try {
      await this.#takeUp(signal, can, { ...where, sessionId: this.sessionId });
      return true;
    } catch (error) {
      if (error instanceof RequestError && this.token.turn === null) return false;
      throw error;
    }
  }

  async #takeUp(signal: AbortSignal, can: Fields, params: Fields): Promise<void> {
    const { recipe } = this.parts;
    if (can['loadSession'] === true) {
      const ageMs = Date.now() - this.token.createdAtMs;
      if (ageMs < recipe.loadsAfterMs) await delay(recipe.loadsAfterMs - ageMs, undefined, { signal });
      const repeated = new RepeatedPrompts();
      this.connection.listen({
        update: (update) => repeated.take(update),
        permission: () => Promise.resolve({ outcome: { outcome: 'cancelled' } }),
        answered: () => Promise.resolve(),
      });
      this.token.modelOption = modelOption(await this.#ask(signal, methods.agent.session.load, params));
      this.connection.listen(undefined);
      this.history = repeated.prompts;
      this.prompts = repeated.prompts.length;
      return;
    }
    const { resume } = (can['sessionCapabilities'] ?? {}) as Fields;
    if (resume === undefined || resume === null) {
      const what = 'cannot take a session up again, and the process that had it is gone';
      throw new LonghaulError('harness_invalid', `${recipe.name} ${what}`);
    }
    this.token.modelOption = modelOption(await this.#ask(signal, methods.agent.session.resume, params));
  }

  #mcpServers(can: Fields): Fields[] {
    const { http } = (can['mcpCapabilities'] ?? {}) as Fields;
    if (http !== true) return [];
    return this.parts.spec.mcpServers.map(({ name, url, headers }) => ({
      type: 'http',
      name,
      url,
      headers: Object.entries(headers).map(([header, value]) => ({ name: header, value })),
    }));
  }

  async #ask(signal: AbortSignal, method: string, params: object): Promise<Answer> {
    signal.throwIfAborted();
    let stop: (() => void) | undefined;
    const stopped = new Promise<never>((_resolve, reject) => {
      stop = () => reject(signal.reason as Error);
      signal.addEventListener('abort', stop, { once: true });
    });
    try {
      return (await Promise.race([this.connection.request(method, params), stopped])) ?? {};
    } finally {
      if (stop !== undefined) signal.removeEventListener('abort', stop);
    }
  }
}

/** The user's messages among the updates with which an agent repeats a session. */
class RepeatedPrompts {
  readonly prompts: string[] = [];
  #isOpen = false;
  #messageId: string | null = null;

  take(update: SessionUpdate): Promise<void> {
    if (update.sessionUpdate === 'user_message_chunk') {
      const messageId = update.messageId ?? null;
      if (!this.#isOpen || messageId !== this.#messageId) this.prompts.push('');
      this.#isOpen = true;
      this.#messageId = messageId;
      const text = update.content.type === 'text' ? update.content.text : '';
      this.prompts[this.prompts.length - 1] += text;
    } else this.#isOpen = false;
    return Promise.resolve();
  }
}

/** The id of the option that is the model, where the agent has one. */
function modelOption(opened: Fields): string | null {
  const options = Array.isArray(opened['configOptions']) ? (opened['configOptions'] as Fields[]) : [];
  const found = options.find((option) => option['category'] === 'model') ?? options.find(({ id }) => id === 'model');
  return typeof found?.['id'] === 'string' ? found['id'] : null;
}

function unavailable(agent: string, error: unknown, key: string): LonghaulError {
  if (error instanceof LonghaulError) return error;
  const details = error instanceof RequestError && error.data !== undefined ? ` ${JSON.stringify(error.data)}` : '';
  const words = `${error instanceof Error ? error.message : 'unknown'}${details}`;
  const reason = words.replaceAll(key, '***').slice(0, REASON_CHARS);
  return new LonghaulError('harness_unavailable', `${agent} could not be opened: ${reason}`);
}
