import { request, type Agent } from 'undici';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import { within } from '../../../contracts/abort.ts';
import { isAlive } from '../../sandbox/local/host.ts';
import { acquireServer, findServer, holdServer, type HarnessHost, type RunningServer } from '../host/servers.ts';
import { requireHarness } from '../installs.ts';
import type {
  HarnessCapabilities,
  HarnessDriver,
  HarnessHandle,
  HarnessSpec,
  ResumeToken,
  TurnHost,
  TurnOutcome,
  TurnSpec,
} from '../port.ts';
import { OpenCodeApi, openConnections } from './api.ts';
import { EventBus } from './bus.ts';
import { OPENCODE_CAPABILITIES } from './capabilities.ts';
import { crashed, failed } from './outcome.ts';
import { openCodeServer } from './server.ts';
import { knownModels, markApplied, removeSettings, settingsOf, writeSettings, type Wire } from './settings.ts';
import { OpenCodeTurn } from './turn.ts';

interface OpenCodeOptions {
  host: HarnessHost;
  /** Where harnesses are installed. */
  installDir: string;
}

interface Token extends ResumeToken {
  sessionId: string;
  /** Ids of messages of the newest turn, by what they are for. */
  sent: Record<string, string>;
}

interface OpenCodeHandle extends HarnessHandle {
  spec: HarnessSpec;
  resumeToken: Token;
}

const MODELS_TIMEOUT_MS = 15_000;
const MAX_MODELS = 500;

/** `opencode serve`: one process for all sessions of a home; a turn goes on when the worker dies. */
export class OpenCodeDriver implements HarnessDriver {
  readonly name = 'opencode';
  readonly #options: OpenCodeOptions;
  readonly #agent: Agent = openConnections();
  #bus: EventBus | undefined;

  constructor(options: OpenCodeOptions) {
    this.#options = options;
  }

  capabilities(): Promise<HarnessCapabilities> {
    return Promise.resolve(OPENCODE_CAPABILITIES);
  }

  async open(spec: HarnessSpec, token: ResumeToken | null, signal: AbortSignal): Promise<HarnessHandle> {
    if (spec.placement !== 'inline' || spec.hands !== 'platform') {
      throw new LonghaulError('harness_invalid', 'opencode runs inline, with the hands of the platform');
    }
    const api = await this.#api(spec, signal);
    const known = readToken(token);
    const status = known === undefined ? { type: 'idle' } : await api.status(known.sessionId, signal);
    const isRunning = status.type !== 'idle';
    // What a running turn uses must not be taken from under it.
    if (!isRunning) await this.#applySettings(api, spec, [], signal);
    const sessionId = await openSession(api, spec, known, signal);
    const handle: OpenCodeHandle = {
      spec,
      harnessSessionId: sessionId,
      resumeToken: { sessionId, sent: known?.sent ?? {} },
      isAttachedToRunning: isRunning,
    };
    return handle;
  }

  async runTurn(handle: HarnessHandle, turn: TurnSpec, host: TurnHost, signal: AbortSignal): Promise<TurnOutcome> {
    const { spec, resumeToken } = handle as OpenCodeHandle;
    const release = holdServer(this.#options.host, 'opencode');
    let server: RunningServer | undefined;
    try {
      const api = await this.#api(spec, signal);
      server = api.server;
      const models = await ownersOf(spec, this.#agent, signal);
      const wire = wireOf(turn.model, models.get(turn.model));
      const { sessionId } = resumeToken;
      if ((await api.status(sessionId, signal)).type === 'idle') {
        await this.#applySettings(api, spec, [...models.keys(), turn.model], signal);
        const away = await toolsAway(api, spec, signal);
        if (away !== null) return away;
      }
      const saveSent = async (sent: Record<string, string>): Promise<void> => {
        resumeToken.sent = sent;
        await host.checkpoint({ ...resumeToken });
      };
      const bus = this.#listen(server);
      const { sent } = resumeToken;
      return await new OpenCodeTurn({ api, bus, spec, sessionId, sent, turn, wire, host, saveSent }).run(signal);
    } catch (error) {
      if (signal.aborted) return { kind: 'cancelled' };
      if (server !== undefined && !isAlive(server)) return crashed('the OpenCode server ended');
      return crashed(error instanceof Error ? error.message : String(error));
    } finally {
      release();
    }
  }

  exportState(): Promise<null> {
    return Promise.resolve(null);
  }

  importState(): Promise<void> {
    return Promise.reject(new LonghaulError('harness_invalid', 'a session of opencode cannot be moved'));
  }

  async close(spec: HarnessSpec, token: ResumeToken | null, forget: boolean, signal: AbortSignal): Promise<void> {
    const known = readToken(token);
    const server = forget && known !== undefined ? await this.#server(signal) : await this.#found(signal);
    if (server !== null && known !== undefined) {
      const api = new OpenCodeApi(server, spec.cwd, this.#agent);
      if ((await api.session(known.sessionId, signal)) !== undefined) {
        if ((await api.status(known.sessionId, signal)).type !== 'idle') await api.abort(known.sessionId, signal);
        if (forget) await api.deleteSession(known.sessionId, signal);
      }
      await api.dispose(signal);
    }
    if (forget) await removeSettings(spec);
  }

  /** Settings as they are wanted now, read by the server. */
  async #applySettings(api: OpenCodeApi, spec: HarnessSpec, models: string[], signal: AbortSignal): Promise<void> {
    const all = new Set([...(await knownModels(spec)), ...models]);
    if (models.length === 0) for (const model of (await ownersOf(spec, this.#agent, signal)).keys()) all.add(model);
    const settings = settingsOf(spec, [...all].toSorted());
    if (!(await writeSettings(spec, settings))) return;
    await api.dispose(signal);
    await markApplied(spec, settings);
  }

  async #api(spec: HarnessSpec, signal: AbortSignal): Promise<OpenCodeApi> {
    return new OpenCodeApi(await this.#server(signal), spec.cwd, this.#agent);
  }

  #server(signal: AbortSignal): Promise<RunningServer> {
    const binary = requireHarness('opencode', this.#options.installDir);
    return acquireServer(this.#options.host, openCodeServer(binary, this.#agent), signal);
  }

  #found(signal: AbortSignal): Promise<RunningServer | null> {
    const binary = requireHarness('opencode', this.#options.installDir);
    return findServer(this.#options.host, openCodeServer(binary, this.#agent), signal);
  }

  #listen(server: RunningServer): EventBus {
    if (this.#bus !== undefined && this.#bus.server.pid === server.pid && !this.#bus.isClosed) return this.#bus;
    this.#bus?.close();
    this.#bus = new EventBus(server, this.#agent);
    return this.#bus;
  }
}

/** The session's one conversation: a title of its own saves a call of a model to make one. */
async function openSession(
  api: OpenCodeApi,
  spec: HarnessSpec,
  known: Token | undefined,
  signal: AbortSignal,
): Promise<string> {
  if (known !== undefined) {
    const found = await api.session(known.sessionId, signal);
    if (found !== undefined) return found.id;
    throw new LonghaulError('harness_invalid', 'this machine’s OpenCode does not have the session’s conversation');
  }
  // It may have been made by a worker that died before it could say so.
  const made = (await api.sessions(signal)).find(({ metadata }) => metadata?.['longhaul'] === spec.sessionId);
  if (made !== undefined) return made.id;
  const metadata = { longhaul: spec.sessionId };
  return (await api.createSession({ title: `Longhaul ${spec.sessionId}`, metadata }, signal)).id;
}

/** Tools are read when a directory is opened; one whose endpoint was away then is asked again. */
async function toolsAway(api: OpenCodeApi, spec: HarnessSpec, signal: AbortSignal): Promise<TurnOutcome | null> {
  const away = async (): Promise<string[]> => {
    const status = await api.mcpStatus(signal);
    return spec.mcpServers.map(({ name }) => name).filter((name) => status[name]?.status !== 'connected');
  };
  const missing = await away();
  for (const name of missing) await api.connectMcp(name, signal);
  const still = missing.length === 0 ? [] : await away();
  if (still.length === 0) return null;
  return failed('overloaded', null, `OpenCode cannot reach the tools of ${still.join(', ')}`, true);
}

/** The models the session's key may call, with who makes them; empty when the gateway does not say. */
async function ownersOf(spec: HarnessSpec, agent: Agent, signal: AbortSignal): Promise<Map<string, string>> {
  try {
    const url = `${spec.model.baseUrl}/v1/models`;
    const headers = { authorization: `Bearer ${spec.model.key}` };
    const { data } = await within(signal, MODELS_TIMEOUT_MS, async (until) => {
      const answer = await request(url, { dispatcher: agent, signal: until, headers });
      return (await answer.body.json()) as { data?: { id: string; owned_by: string }[] };
    });
    return new Map((data ?? []).slice(0, MAX_MODELS).map(({ id, owned_by: owner }) => [id, owner]));
  } catch {
    signal.throwIfAborted();
    return new Map();
  }
}

const MESSAGES_OWNERS = new Set(['anthropic', 'bedrock', 'vertex']);

function wireOf(model: string, owner: string | undefined): Wire {
  if (owner === undefined) return /claude/i.test(model) ? 'messages' : 'chat';
  return MESSAGES_OWNERS.has(owner) ? 'messages' : 'chat';
}

function readToken(token: ResumeToken | null): Token | undefined {
  const { sessionId, sent } = (token ?? {}) as Partial<Token>;
  return typeof sessionId === 'string' ? { sessionId, sent: { ...sent } } : undefined;
}
