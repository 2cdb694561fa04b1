import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Registry } from 'prom-client';
import { LonghaulError } from '../contracts/error-codes.ts';
import { newId } from '../contracts/ids.ts';
import { LIMITS } from '../contracts/limits.ts';
import { isOutage, type Pool } from '../db/pool.ts';
import { listScriptedCalls } from '../db/queries/scripted-calls.ts';
import type { Logger } from '../telemetry/logger.ts';
import { NO_TRACING, type Tracing } from '../telemetry/tracing.ts';
import { Authenticator, mayCall, type Caller } from './auth.ts';
import { BudgetService } from './budget/service.ts';
import { Caches } from './cache/caches.ts';
import { serveDirect } from './calls/direct.ts';
import { readCallKey, type CallKey } from './calls/idempotency-key.ts';
import type { Meter } from './calls/metered-call.ts';
import { DEGRADED_HEADER, type ModelRequest } from './calls/model-request.ts';
import { RecordedCalls } from './calls/recorded.ts';
import { placeInTurn } from './calls/turn-call.ts';
import type { GatewayConfig, GatewayTimeouts } from './config.ts';
import { parseJsonObject, readBody, sendError, sendJson } from './http.ts';
import { GatewayMetrics } from './metrics.ts';
import { LivePrices } from './prices/live-prices.ts';
import type { Protocol } from './protocol.ts';
import type { Provider, ProviderRequest, StoredRequest } from './providers/port.ts';
import { StoredResponses } from './responses/stored-responses.ts';
import { createScriptedProvider } from './providers/scripted-provider.ts';
import { EndpointTable, type Exchange, type Found, type Method } from './endpoints.ts';
import { describeGeminiModel, describeModel, SCRIPTED_MODEL } from './routing/models.ts';
import { GEMINI_VERBS, readFacts, withPathFields, type GeminiVerb } from './routing/gemini-request.ts';
import { withUsageReport } from './routing/request.ts';
import { Router } from './routing/router.ts';
import { CallTelemetry } from './trace.ts';

interface GatewayDeps {
  pool: Pool;
  config: GatewayConfig;
  logger: Logger;
  /** Where the gateway's metrics are registered; default: nowhere. */
  registry?: Registry;
  /** Default: off. */
  tracing?: Tracing;
}

/** The LLM data plane, to be mounted ahead of any framework. */
export interface Gateway {
  /** Answers the request and returns true, or returns false when the path is not the gateway's. */
  handle(req: IncomingMessage, res: ServerResponse): boolean;
  /** What is wrong with the routes as they are configured now; the last good ones are in use. */
  problems(): readonly string[];
  /** Ends when running calls have ended or had their grace, and every ledger row is written. */
  close(graceMs?: number): Promise<void>;
}

const CLOSE_GRACE_MS = 10_000;
/** Headers of the caller that are part of a protocol; everything else stays here. */
const PROTOCOL_HEADERS = ['accept', 'anthropic-version', 'anthropic-beta', 'openai-beta'] as const;

/** Builds a gateway over one database pool. */
export function createGateway(deps: GatewayDeps): Gateway {
  return new GatewayServer(deps);
}

class GatewayServer implements Gateway {
  readonly #deps: GatewayDeps;
  readonly #scripted: Provider | undefined;
  readonly #router: Router;
  readonly #timeouts: GatewayTimeouts;
  readonly #authenticator: Authenticator;
  readonly #metrics: GatewayMetrics;
  readonly #telemetry: CallTelemetry;
  readonly #budgets: BudgetService;
  readonly #meter: Meter;
  readonly #prices: LivePrices;
  /** Prices and routes have been read once. */
  readonly #ready: Promise<unknown>;
  readonly #recorded: RecordedCalls;
  readonly #caches: Caches;
  readonly #responses: StoredResponses;
  readonly #endpoints: EndpointTable;

  constructor(deps: GatewayDeps) {
    this.#deps = deps;
    const { config, pool, logger } = deps;
    // Each attempt has a clock of its own for its first byte; of all attempts together only the end counts.
    this.#timeouts = { ...config.timeouts, firstByteMs: config.timeouts.totalMs };
    this.#scripted = config.scripted ? createScriptedProvider(pool) : undefined;
    this.#router = new Router({ pool, config, logger, scripted: this.#scripted });
    this.#authenticator = new Authenticator(pool);
    this.#metrics = new GatewayMetrics(deps.registry);
    this.#prices = new LivePrices(pool, logger, (teamId, deployment) => this.#router.priceOf(teamId, deployment));
    this.#ready = Promise.all([this.#prices.start(), this.#router.ready]);
    this.#telemetry = new CallTelemetry(deps.tracing ?? NO_TRACING, deps.registry);
    this.#budgets = new BudgetService({ pool, logger, prices: this.#prices, config });
    this.#meter = { keeper: this.#budgets.keeper, journal: this.#budgets.journal, prices: this.#prices };
    this.#recorded = new RecordedCalls({
      pool,
      logger,
      authenticator: this.#authenticator,
      meter: this.#meter,
      metrics: this.#metrics,
      telemetry: this.#telemetry,
      timeouts: this.#timeouts,
      leaseMs: config.leaseMs,
    });
    const shared = { journal: this.#budgets.journal, telemetry: this.#telemetry };
    this.#caches = new Caches({ ...shared, pool, logger, config, registry: deps.registry });
    this.#responses = new StoredResponses({
      pool,
      logger,
      authenticator: this.#authenticator,
      prices: this.#prices,
      timeouts: this.#timeouts,
      providerOf: (row) => this.#router.providerOf(row),
    });
    this.#endpoints = this.#listEndpoints();
  }

  #listEndpoints(): EndpointTable {
    const table = new EndpointTable();
    const model = (path: string, protocol: Protocol, operation: ProviderRequest['operation'] = 'generate'): void => {
      table.add('POST', path, protocol, (exchange) => this.#serveModel(exchange, protocol, operation));
    };
    model('/v1/messages', 'messages');
    model('/v1/messages/count_tokens', 'messages', 'count_tokens');
    for (const verb of GEMINI_VERBS) {
      const operation = verb === 'countTokens' ? 'count_tokens' : 'generate';
      table.add('POST', `/v1beta/models/{id}:${verb}`, 'gemini', (exchange) =>
        this.#serveModel(exchange, 'gemini', operation, verb),
      );
    }
    table.add('GET', '/v1beta/models', 'gemini', (exchange) => this.#geminiModels(exchange));
    table.add('GET', '/v1beta/models/{id}', 'gemini', (exchange) => this.#geminiModels(exchange));
    // OpenAI's paths also without the version: base URLs are written both ways.
    for (const base of ['/v1', '']) {
      model(`${base}/chat/completions`, 'chat');
      model(`${base}/responses`, 'responses');
      table.add('GET', `${base}/models`, 'messages', (exchange) => this.#models(exchange));
      table.add('GET', `${base}/models/{id}`, 'messages', (exchange) => this.#model(exchange));
    }
    for (const base of ['/v1', '']) {
      const stored = (method: Method, path: string, action: StoredRequest['action']): void => {
        table.add(method, `${base}/responses/{id}${path}`, 'responses', (exchange) => this.#stored(exchange, action));
      };
      stored('POST', '/cancel', 'cancel');
      stored('GET', '/input_items', 'input_items');
      stored('GET', '', 'retrieve');
      stored('DELETE', '', 'delete');
    }
    // Where those who come from LiteLLM have their probes.
    for (const probe of ['liveliness', 'liveness', 'readiness']) {
      table.add('GET', `/health/${probe}`, 'chat', (exchange) => this.#health(exchange, probe === 'readiness'));
    }
    table.add('POST', '/v1/model-calls/cancel', 'messages', (exchange) => this.#cancel(exchange));
    if (this.#deps.config.scripted) {
      table.add('GET', '/scripted/calls', 'messages', (exchange) => this.#scriptedCalls(exchange));
    }
    return table;
  }

  handle(req: IncomingMessage, res: ServerResponse): boolean {
    const found = this.#endpoints.find(req.method ?? '', req.url ?? '/');
    if (found === undefined) return refuseForeign(req, res);
    void this.#answer(found, req, res);
    return true;
  }

  problems(): readonly string[] {
    return this.#router.problems;
  }

  async close(graceMs: number = CLOSE_GRACE_MS): Promise<void> {
    await this.#recorded.close(graceMs);
    await this.#responses.close();
    await Promise.all([this.#scripted?.close(), this.#router.close()]);
    await this.#caches.close();
    await this.#budgets.close();
    this.#telemetry.drain();
    await this.#prices.close();
  }

  async #answer({ endpoint, id, search }: Found, req: IncomingMessage, res: ServerResponse): Promise<void> {
    const requestId = newId('request');
    try {
      if (!('handler' in endpoint)) {
        throw new LonghaulError('method_not_allowed', `this path takes ${endpoint.allowed} only`);
      }
      await this.#ready;
      await endpoint.handler({ req, res, requestId, id, search });
    } catch (error) {
      const known = this.#known(error, requestId, res);
      if (known !== undefined) sendError(res, endpoint.protocol, { error: known }, requestId);
    }
  }

  #known(error: unknown, requestId: string, res: ServerResponse): LonghaulError | undefined {
    if (error instanceof LonghaulError) return error;
    if (res.destroyed) return undefined;
    if (isOutage(error)) return new LonghaulError('database_unavailable', 'the database does not answer');
    this.#deps.logger.error({ err: error, requestId }, 'gateway request failed');
    return new LonghaulError('internal', 'something went wrong in the gateway');
  }

  async #serveModel(
    { req, res, id, search, requestId }: Exchange,
    protocol: Protocol,
    operation: ProviderRequest['operation'],
    verb?: GeminiVerb,
  ): Promise<void> {
    // The body is read while the key is looked up; a refused key still waits for it, so that the answer is read.
    const [caller, sent] = await Promise.all([this.#authenticator.authenticate(req), readBody(req)]);
    const body = verb === undefined ? sent : withPathFields(sent, verb, id, search);
    const facts = readFacts(protocol, body);
    const { model, stream, maxOutputTokens } = facts;
    if (!mayCall(caller, model)) throw new LonghaulError('model_not_allowed', `this key may not call "${model}"`);
    const planned = await this.#planModel(caller, model, operation);
    if (planned !== model) res.setHeader(DEGRADED_HEADER, model);
    const { teamId } = caller.attribution;
    const plan = this.#router.plan({ teamId, model: planned, protocol, operation, isStream: stream });
    const asked = withUsageReport(protocol, body, stream);
    const isFree = operation !== 'generate';
    const turnCall = isFree ? undefined : await placeInTurn(this.#deps.pool, caller, facts.isBackground);
    const plain: ModelRequest = {
      res,
      requestId,
      protocol,
      caller,
      provider: this.#telemetry.watch(plan.provider),
      model: plan.model,
      requestedModel: model,
      modelDeployment: plan.modelDeployment,
      targets: plan.targets,
      isStream: stream,
      turnCall,
      traceparent: req.headers['traceparent'] as string | undefined,
      maxOutputTokens,
      body,
      upstream: {
        protocol,
        operation,
        // As the body names it: each attempt puts its own name there.
        model,
        body: asked,
        hidesUsage: asked !== body,
        headers: protocolHeaders(req),
        search: isBeta(search) ? '?beta=true' : '',
        sessionId: caller.attribution.sessionId ?? undefined,
      },
    };
    const key = req.headers['idempotency-key'];
    const callKey = !isFree && typeof key === 'string' ? readCallKey(caller, key) : undefined;
    const request = protocol === 'responses' ? await this.#responses.prepare(plain, facts, key !== undefined) : plain;
    // An answer that is still to be made is none to keep.
    if (request.background !== undefined) await this.#call(request, undefined);
    else await this.#caches.serve(req.headers, request, callKey, (ready) => this.#call(ready, callKey));
  }

  /** Makes the call, as its own or as that of its idempotency key. */
  async #call(request: ModelRequest, callKey: CallKey | undefined): Promise<void> {
    if (callKey !== undefined) return this.#recorded.serve(request, callKey);
    const shared = { authenticator: this.#authenticator, metrics: this.#metrics, meter: this.#meter };
    await serveDirect({ ...shared, telemetry: this.#telemetry, timeouts: this.#timeouts }, request);
  }

  /** A pool that is nearly spent may say that a cheaper model is called. */
  async #planModel(caller: Caller, model: string, operation: ProviderRequest['operation']): Promise<string> {
    return operation === 'generate' ? this.#budgets.keeper.planModel(caller.attribution, model) : model;
  }

  async #health({ res, requestId }: Exchange, isDeep: boolean): Promise<void> {
    if (isDeep) await this.#deps.pool.query('SELECT 1');
    sendJson(res, 200, { 'request-id': requestId }, { status: isDeep ? 'healthy' : 'alive' });
  }

  async #stored(exchange: Exchange, action: StoredRequest['action']): Promise<void> {
    const caller = await this.#authenticator.authenticate(exchange.req);
    exchange.req.resume();
    await this.#responses.serve(exchange, caller, action);
  }

  async #models({ req, res, requestId }: Exchange): Promise<void> {
    const data = await this.#modelsOf(req);
    // Both vendors' list shapes in one: their SDKs read only their own fields.
    const page = {
      object: 'list',
      data,
      has_more: false,
      first_id: data[0]?.id ?? null,
      last_id: data.at(-1)?.id ?? null,
    };
    sendJson(res, 200, { 'request-id': requestId }, page);
  }

  async #model({ req, res, id, requestId }: Exchange): Promise<void> {
    const model = (await this.#modelsOf(req)).find((listed) => listed.id === id);
    if (model === undefined) throw new LonghaulError('model_not_found', `there is no model "${id}" for this key`);
    sendJson(res, 200, { 'request-id': requestId }, model);
  }

  /** Those that answer on Google's paths, or the one that is named. */
  async #geminiModels({ req, res, id, requestId }: Exchange): Promise<void> {
    const models = (await this.#modelsFor(req, 'gemini')).map(describeGeminiModel);
    const named = models.find(({ name }) => name === `models/${id}`);
    if (id !== '' && named === undefined) {
      throw new LonghaulError('model_not_found', `there is no model "${id}" for this key`);
    }
    sendJson(res, 200, { 'request-id': requestId }, named ?? { models });
  }

  async #modelsOf(req: IncomingMessage): Promise<ReturnType<typeof describeModel>[]> {
    return (await this.#modelsFor(req)).map(describeModel);
  }

  async #modelsFor(req: IncomingMessage, protocol?: Protocol): Promise<{ id: string; provider: string }[]> {
    const caller = await this.#authenticator.authenticate(req);
    return this.#router.models(caller.attribution.teamId, protocol).filter((model) => mayCall(caller, model.id));
  }

  async #cancel({ req, res, requestId }: Exchange): Promise<void> {
    const [caller, body] = await Promise.all([this.#authenticator.authenticate(req), readBody(req)]);
    const key = parseJsonObject(body)['idempotency_key'];
    if (typeof key !== 'string') {
      throw new LonghaulError('invalid_request', 'must be a string', { field: 'idempotency_key' });
    }
    const callKey = readCallKey(caller, key);
    if (callKey.place === undefined) {
      throw new LonghaulError('invalid_request', 'must be <session>/<turn>/<step>', { field: 'idempotency_key' });
    }
    const { sessionId } = callKey.place;
    const state = await this.#recorded.cancel({ key: callKey.stored, sessionId, requestId });
    sendJson(res, 200, { 'request-id': requestId }, { type: 'model_call', idempotency_key: callKey.stored, state });
  }

  async #scriptedCalls({ req, res, search, requestId }: Exchange): Promise<void> {
    const caller = await this.#authenticator.authenticate(req);
    const sessionId = new URLSearchParams(search).get('session');
    if (sessionId === null) throw new LonghaulError('invalid_request', 'name the session', { field: 'session' });
    const own = caller.attribution.sessionId;
    if (caller.virtualKey !== undefined && own !== sessionId) {
      throw new LonghaulError('forbidden', 'this key is bound to another session');
    }
    const { teamId } = caller.attribution;
    const rows = await listScriptedCalls(this.#deps.pool, { teamId, sessionId }, LIMITS.pageSizeMax);
    const data = rows.map(({ script, step, asked, billed }) => ({
      session_id: sessionId,
      script,
      step,
      asked,
      billed,
    }));
    sendJson(res, 200, { 'request-id': requestId }, { model: SCRIPTED_MODEL, data });
  }
}

/** Google's paths are all the gateway's: what it has not there is refused in Google's words. */
function refuseForeign(req: IncomingMessage, res: ServerResponse): boolean {
  const [path = ''] = (req.url ?? '').split('?', 1);
  if (!path.startsWith('/v1beta/')) return false;
  req.resume();
  const error = new LonghaulError('route_not_found', `there is no ${req.method ?? ''} ${path.slice(0, 200)}`);
  sendError(res, 'gemini', { error }, newId('request'));
  return true;
}

function protocolHeaders(req: IncomingMessage): Record<string, string> {
  const kept: Record<string, string> = {};
  for (const name of PROTOCOL_HEADERS) {
    const value = req.headers[name];
    if (typeof value === 'string') kept[name] = value;
  }
  return kept;
}

/** The one parameter that is part of a protocol. */
function isBeta(search: string): boolean {
  return search !== '' && new URLSearchParams(search).get('beta') === 'true';
}
