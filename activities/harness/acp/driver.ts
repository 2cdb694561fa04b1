import { LonghaulError } from '../../../contracts/error-codes.ts';
import type {
  HarnessCapabilities,
  HarnessDriver,
  HarnessHandle,
  HarnessSpec,
  Placement,
  ResumeToken,
  TurnHost,
  TurnOutcome,
  TurnSpec,
} from '../port.ts';
import type { StdioPlace } from '../host/stdio.ts';
import type { AcpRecipe } from './recipes.ts';
import { faultOf } from './faults.ts';
import { AcpSession, homeOf, type AgentParts } from './session.ts';
import { emptyToken, readToken, writeToken, type AcpToken } from './token.ts';
import { AcpTurn } from './turn.ts';

/** What the driver stands on. */
export interface AcpDeps {
  recipes: ReadonlyMap<string, AcpRecipe>;
  /** Where a session's agent runs. */
  place(spec: HarnessSpec): Promise<StdioPlace>;
  /** Program and arguments of an agent at its place; undefined: those of its recipe. */
  program(recipe: AcpRecipe, spec: HarnessSpec): Promise<readonly string[] | undefined>;
  placements: readonly Placement[];
  /** An agent without a turn for so long is ended; its session stays. */
  keepMs: number;
}

const MAX_STATE_BYTES = 16 * 1024 * 1024;
const END_MS = 60_000;

/** A session of an agent, with its token as it is now. */
class AcpHandle implements HarnessHandle {
  readonly spec: HarnessSpec;
  readonly isAttachedToRunning: boolean;
  token: AcpToken;

  constructor(spec: HarnessSpec, token: AcpToken, isAttachedToRunning: boolean) {
    this.spec = spec;
    this.token = token;
    this.isAttachedToRunning = isAttachedToRunning;
  }

  get harnessSessionId(): string {
    return this.token.sessionId ?? '';
  }

  get resumeToken(): ResumeToken {
    return writeToken(this.token);
  }
}

/** Any agent that speaks ACP over standard input and output: one process per session, so that each has its own key. */
export class AcpDriver implements HarnessDriver {
  readonly name = 'acp';
  readonly #deps: AcpDeps;
  readonly #live = new Map<string, AcpSession>();
  readonly #idle = new Map<string, NodeJS.Timeout>();

  constructor(deps: AcpDeps) {
    this.#deps = deps;
  }

  capabilities(agent?: string): Promise<HarnessCapabilities> {
    const recipe = agent === undefined ? undefined : this.#deps.recipes.get(agent);
    const { placements } = this.#deps;
    return Promise.resolve({
      multiSession: false,
      placements,
      perSessionKey: true,
      perMessageModel: true,
      mcp: ['http'],
      idempotentMessage: 'looked_up',
      hotReattach: placements.includes('sandbox'),
      durablePermission: false,
      deniesWithReason: false,
      ...(recipe?.can ?? { systemPrompt: 'none', usageBasis: 'none', skills: false, remoteTools: false }),
      notes: [...(recipe?.notes ?? ['What an agent can do is in the notes of its recipe.'])],
    });
  }

  async open(spec: HarnessSpec, token: ResumeToken | null, signal: AbortSignal): Promise<HarnessHandle> {
    const recipe = this.#recipe(spec);
    const known = readToken(token, recipe.name) ?? emptyToken(recipe.name);
    // Nobody knows its model yet: it starts with the first turn, once.
    if (recipe.model === 'process' && known.model === null) return new AcpHandle(spec, known, false);
    const session = await this.#session(spec, known, known.model ?? '', signal);
    const { turn } = session.token;
    const runs = turn !== null && !turn.isOver && session.sent.has(turn.messageId);
    this.#keep(spec.sessionId);
    return new AcpHandle(spec, session.current(), runs);
  }

  async runTurn(handle: HarnessHandle, turn: TurnSpec, host: TurnHost, signal: AbortSignal): Promise<TurnOutcome> {
    if (!(handle instanceof AcpHandle)) throw new LonghaulError('internal', 'a handle of another driver');
    const { spec } = handle;
    clearTimeout(this.#idle.get(spec.sessionId));
    try {
      const session = await this.#forModel(handle, turn, signal);
      handle.token = session.token;
      const outcome = await new AcpTurn(session, turn, host).run(signal);
      await this.#after(session, outcome);
      return scrubbed(outcome, spec.model.key);
    } catch (error) {
      if (signal.aborted) return { kind: 'cancelled' };
      const { key } = spec.model;
      if (!(error instanceof LonghaulError)) return scrubbed(faultOf(error), key);
      const { message, retryable } = error;
      return scrubbed({ kind: 'failed', fault: 'harness_crash', retryable, httpStatus: null, message }, key);
    }
  }

  async exportState(handle: HarnessHandle, signal: AbortSignal): Promise<Uint8Array | null> {
    if (!(handle instanceof AcpHandle)) throw new LonghaulError('internal', 'a handle of another driver');
    const place = await this.#deps.place(handle.spec);
    const files = await place.readFolder(homeOf(handle.spec), MAX_STATE_BYTES, signal);
    const packed = files.map(({ path, content }) => ({ path, content: Buffer.from(content).toString('base64') }));
    return Buffer.from(JSON.stringify(packed));
  }

  async importState(spec: HarnessSpec, _token: ResumeToken, state: Uint8Array, signal: AbortSignal): Promise<void> {
    const place = await this.#deps.place(spec);
    const packed = JSON.parse(Buffer.from(state).toString('utf8')) as { path: string; content: string }[];
    for (const { path, content } of packed) {
      if (path.startsWith('/') || path.split('/').includes('..')) continue;
      await place.writeFile(`${homeOf(spec)}/${path}`, Buffer.from(content, 'base64'), signal);
    }
  }

  async close(spec: HarnessSpec, _token: ResumeToken | null, forget: boolean, signal: AbortSignal): Promise<void> {
    this.#drop(spec.sessionId);
    // What was in a sandbox ended with it.
    if (spec.placement === 'sandbox' && spec.sandbox === undefined) return;
    const place = await this.#deps.place(spec);
    await place.end(spec.sessionId, signal);
    if (forget) await place.remove(spec.stateDir, signal);
  }

  #recipe(spec: HarnessSpec): AcpRecipe {
    const recipe = this.#deps.recipes.get(spec.agent ?? '');
    if (recipe !== undefined) return recipe;
    const names = [...this.#deps.recipes.keys()].join(', ');
    throw new LonghaulError('harness_invalid', `must be one of ${names}`, { field: 'agent' });
  }

  /** The session in its running process, here or found again, else in a new one. */
  async #session(spec: HarnessSpec, token: AcpToken, model: string, signal: AbortSignal): Promise<AcpSession> {
    const live = this.#live.get(spec.sessionId);
    if (live !== undefined && live.connection.isAlive && live.token.sessionId === token.sessionId) return live;
    this.#drop(spec.sessionId);
    const recipe = this.#recipe(spec);
    const place = await this.#deps.place(spec);
    const argv = (await this.#deps.program(recipe, spec)) ?? recipe.argv;
    const parts: AgentParts = { recipe, spec, place, argv };
    const session =
      (await AcpSession.attach(parts, token, signal)) ?? (await AcpSession.start(parts, token, model, signal));
    this.#live.set(spec.sessionId, session);
    return session;
  }

  /** An agent that learns its model when it starts is started anew for another one. */
  async #forModel(handle: AcpHandle, turn: TurnSpec, signal: AbortSignal): Promise<AcpSession> {
    const { spec } = handle;
    const session = await this.#session(spec, handle.token, turn.model, signal);
    const { recipe, place } = session.parts;
    if (recipe.model === 'protocol' || session.token.model === turn.model) return session;
    const token = session.current();
    this.#drop(spec.sessionId);
    await place.end(spec.sessionId, signal);
    return this.#session(spec, token, turn.model, signal);
  }

  async #after(session: AcpSession, outcome: TurnOutcome): Promise<void> {
    const { spec, place } = session.parts;
    const { kind } = outcome;
    if (kind === 'detached') this.#drop(spec.sessionId);
    // What of a failed turn is in the agent's memory is known again when it loads the session.
    else if (kind === 'failed') {
      this.#drop(spec.sessionId);
      await place.end(spec.sessionId, AbortSignal.timeout(END_MS));
    } else this.#keep(spec.sessionId);
  }

  #keep(sessionId: string): void {
    clearTimeout(this.#idle.get(sessionId));
    const timer = setTimeout(() => {
      const session = this.#live.get(sessionId);
      this.#drop(sessionId);
      void session?.parts.place.end(sessionId, AbortSignal.timeout(END_MS)).catch(() => undefined);
    }, this.#deps.keepMs);
    timer.unref();
    this.#idle.set(sessionId, timer);
  }

  #drop(sessionId: string): void {
    clearTimeout(this.#idle.get(sessionId));
    this.#idle.delete(sessionId);
    this.#live.get(sessionId)?.connection.release();
    this.#live.delete(sessionId);
  }
}

/** Agents quote requests in their errors. */
function scrubbed(outcome: TurnOutcome, key: string): TurnOutcome {
  return outcome.kind === 'failed' ? { ...outcome, message: outcome.message.replaceAll(key, '***') } : outcome;
}
