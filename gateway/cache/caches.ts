import type { IncomingHttpHeaders, ServerResponse } from 'node:http';
import type { Registry } from 'prom-client';
import { placeBreakpoints, promptCacheMinimumTokens, PROMPT_PREFIX_HEADER } from '../../contracts/caching.ts';
import type { Usage } from '../../contracts/definitions.ts';
import { LIMITS } from '../../contracts/limits.ts';
import type { Pool } from '../../db/pool.ts';
import type { AnswerKey } from '../../db/queries/cached-answers.ts';
import type { Logger } from '../../telemetry/logger.ts';
import type { CallKey } from '../calls/idempotency-key.ts';
import type { CallJournal } from '../calls/call-journal.ts';
import type { CallTelemetry } from '../trace.ts';
import type { ModelRequest } from '../calls/model-request.ts';
import type { GatewayConfig } from '../config.ts';
import { replayable } from './answer.ts';
import { Flights, type Boarding } from './flights.ts';
import { HitRates } from './hit-rates.ts';
import { contentKey, responseKey } from './key.ts';
import { CacheMetrics } from './metrics.ts';
import { CachePolicies, wantedResponseCache, type CachePolicy } from './policy.ts';
import { prefixOfBody, readPrefixHeader } from './prefix.ts';
import { PrefixWatch } from './prefix-watch.ts';
import { Replayer } from './replay.ts';
import { keepingProvider, type KeptAnswer } from './keeping-provider.ts';
import { openStore } from './store.ts';

interface CachesDeps {
  pool: Pool;
  logger: Logger;
  registry: Registry | undefined;
  config: Pick<GatewayConfig, 'cache' | 'leaseMs' | 'timeouts'>;
  journal: CallJournal;
  telemetry: CallTelemetry;
}

/** The next stage of a call: makes it. */
type Next = (request: ModelRequest) => Promise<void>;
/** What a lookup needs, and how a good answer is made one that can be given again. */
interface Lookup {
  at: AnswerKey;
  ttlMs: number;
  replayable: (answer: KeptAnswer) => Buffer | undefined;
}

/** Header that says whether an answer was given before. Absent where no cache was asked. */
const STATE_HEADER = 'x-cache';
/** Another word makes all counts of before unreachable. */
const COUNT_TOKENS_STEP = 'count_tokens.1';

/** The caches a call passes before it is made: breakpoints for the provider's own, and answers given before. */
export class Caches {
  readonly #deps: CachesDeps;
  readonly #policies: CachePolicies;
  readonly #flights: Flights;
  readonly #watch: PrefixWatch;
  readonly #rates: HitRates;
  readonly #replayer: Replayer;

  constructor(deps: CachesDeps) {
    const { pool, logger, journal, telemetry } = deps;
    const { cache, leaseMs } = deps.config;
    this.#deps = deps;
    const metrics = new CacheMetrics(deps.registry);
    this.#policies = new CachePolicies(pool, cache.defaultTtlMs);
    this.#flights = new Flights({ store: openStore(pool, cache.redis, logger), logger, leaseMs });
    this.#watch = new PrefixWatch({ pool, logger, metrics });
    this.#rates = new HitRates({
      pool,
      logger,
      metrics,
      alert: cache.alert,
      prefixesKnown: () => this.#watch.settled(),
    });
    this.#replayer = new Replayer({ pool, journal, telemetry, leaseMs });
  }

  /** Answers from a cache, or makes the call by `next` and keeps its answer where that is wanted. */
  async serve(
    headers: IncomingHttpHeaders,
    request: ModelRequest,
    callKey: CallKey | undefined,
    next: Next,
  ): Promise<void> {
    const policy = this.#policies.known(request.caller) ?? (await this.#policies.lookUp(request.caller));
    const wanted = wantedResponseCache(policy, headers);
    const body = needsBody(policy, request) || wanted !== undefined ? parse(request.upstream.body) : undefined;
    const prepared = this.#watched(policy, this.#prepared(request, policy, body, headers));
    const lookup = this.#lookup(prepared, body, wanted);
    if (lookup === undefined) return next(prepared);
    await this.#through(prepared, callKey, lookup, next);
  }

  /** Ends when everything is written. */
  async close(): Promise<void> {
    await Promise.all([this.#flights.close(), this.#watch.settled(), this.#rates.close()]);
  }

  /** Breakpoints where they are ours to place, and a look at the prefix. */
  #prepared(
    request: ModelRequest,
    policy: CachePolicy,
    body: Record<string, unknown> | undefined,
    headers: IncomingHttpHeaders,
  ): ModelRequest {
    if (request.upstream.operation !== 'generate' || policy.prompt.type === 'off') return request;
    const isOurs = !policy.isNative && body !== undefined && request.protocol === 'messages';
    const prefix = policy.isNative
      ? readPrefixHeader(headers[PROMPT_PREFIX_HEADER])
      : isOurs
        ? orNone(() => prefixOfBody(body))
        : undefined;
    const { caller, res, model } = request;
    if (prefix !== undefined) this.#watch.look({ caller, policy, model, res }, prefix);
    if (!isOurs) return request;
    const marked = placeBreakpoints(body, policy.prompt.ttl);
    if (marked === body) return request;
    const written = orNone(() => Buffer.from(JSON.stringify(marked)));
    return written === undefined ? request : { ...request, upstream: { ...request.upstream, body: written } };
  }

  /** The request, whose outcome also tells whether the provider had its prompt cached. */
  #watched(policy: CachePolicy, request: ModelRequest): ModelRequest {
    // OpenAI's models cache by themselves; Anthropic's where breakpoints are placed.
    const isCached = request.protocol !== 'messages' || policy.prompt.type === 'auto';
    if (request.upstream.operation !== 'generate' || !isCached) return request;
    return {
      ...request,
      onUsage: (usage) => {
        if (!couldBeCached(request, usage)) return;
        this.#rates.looked('prompt', request.caller.attribution, usage.cacheReadTokens > 0);
        const isUsed = usage.cacheReadTokens + usage.cacheWrite5mTokens + usage.cacheWrite1hTokens > 0;
        if (!isUsed && request.protocol === 'messages') this.#watch.ignored(request);
      },
    };
  }

  #lookup(
    request: ModelRequest,
    body: Record<string, unknown> | undefined,
    wanted: NonNullable<CachePolicy['response']> | undefined,
  ): Lookup | undefined {
    const { caller, model, protocol, upstream, isStream } = request;
    const { teamId, agentId, agentVersion } = caller.attribution;
    if (upstream.operation === 'count_tokens') {
      const key = contentKey({ step: COUNT_TOKENS_STEP, teamId, model }, upstream.body);
      const at: AnswerKey = { key, layer: 'content', teamId };
      return { at, ttlMs: LIMITS.contentCacheTtlMs, replayable: (answer) => answer.body };
    }
    if (wanted === undefined || body === undefined) return undefined;
    const promptVersion = `${this.#deps.config.cache.promptVersion}/${agentId ?? ''}/${agentVersion ?? ''}`;
    const { accept: _accept, ...headers } = upstream.headers;
    const key = orNone(() => responseKey({ protocol, model, isStream, teamId, promptVersion, headers }, body));
    if (key === undefined) return undefined;
    return {
      at: { key, layer: 'response', teamId },
      ttlMs: wanted.ttlMs,
      replayable: (answer) => {
        const wasStream = /^text\/event-stream/i.test(answer.headers['content-type'] ?? '');
        return wasStream === isStream
          ? replayable({ protocol, isStream, body: answer.body }, wanted.toolCalls)
          : undefined;
      },
    };
  }

  async #through(request: ModelRequest, callKey: CallKey | undefined, lookup: Lookup, next: Next): Promise<void> {
    const { res } = request;
    const boarding = await this.#board(lookup.at, res);
    if (res.destroyed) {
      if (boarding.kind === 'lead') boarding.flight.drop();
      return;
    }
    this.#rates.looked(lookup.at.layer, request.caller.attribution, boarding.kind === 'hit');
    res.setHeader(STATE_HEADER, boarding.kind === 'hit' ? 'hit' : 'miss');
    if (boarding.kind === 'hit') {
      if (await this.#replayer.replay(request, callKey, boarding.answer)) return;
      // The idempotency key has an answer, or a call, of its own: that counts.
      res.removeHeader(STATE_HEADER);
    }
    if (boarding.kind !== 'lead') return next(request);
    const { flight } = boarding;
    const keeping = keepingProvider(request.provider, {
      drop: () => flight.drop(),
      keep: (answer) => {
        const model = answer.model ?? request.model;
        // What a fallback says must not stand for the model that was asked, once that is there again.
        const body = model === request.model ? lookup.replayable(answer) : undefined;
        if (body === undefined) flight.drop();
        else flight.keep({ ...answer, model, body }, lookup.ttlMs);
      },
    });
    const over = (usage: Usage): void => {
      request.onUsage?.(usage);
      // However the call has ended: what was to be kept is kept by now.
      flight.drop();
    };
    try {
      await next({ ...request, provider: keeping.provider, onUsage: over });
    } catch (error) {
      flight.drop();
      throw error;
    }
    // Answered from the record of an idempotency key: there is no call whose end could be waited for.
    if (!keeping.started()) flight.drop();
  }

  async #board(at: AnswerKey, res: ServerResponse): Promise<Boarding> {
    try {
      // Another call may take as long as a call may take.
      return await this.#flights.board(at, res, this.#deps.config.timeouts.totalMs);
    } catch (error) {
      this.#deps.logger.warn({ err: error }, 'the cache of answers was passed by');
      return { kind: 'alone' };
    }
  }
}

/** False for a call that the provider had no reason to cache: it says nothing about how well that works. */
function couldBeCached({ model }: ModelRequest, usage: Usage): boolean {
  const written = usage.cacheWrite5mTokens + usage.cacheWrite1hTokens;
  if (usage.cacheReadTokens + written > 0) return true;
  const minimumTokens = promptCacheMinimumTokens(model);
  return minimumTokens !== undefined && usage.inputTokens >= minimumTokens;
}

function needsBody(policy: CachePolicy, { protocol, upstream }: ModelRequest): boolean {
  if (upstream.operation !== 'generate') return false;
  return policy.prompt.type === 'auto' && !policy.isNative && protocol === 'messages';
}

/** Undefined for a body that is not to be looked into: the provider gets it as it is. */
function parse(body: Buffer): Record<string, unknown> | undefined {
  if (body.length > LIMITS.cacheableRequestBytes) return undefined;
  try {
    const value: unknown = JSON.parse(body.toString('utf8'));
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : undefined;
  } catch {
    return undefined;
  }
}

/** JSON without a canonical form (a lone surrogate, absurd nesting) has neither key nor fingerprint, and gets no marks. */
function orNone<T>(work: () => T): T | undefined {
  try {
    return work();
  } catch {
    return undefined;
  }
}
