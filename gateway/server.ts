import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Registry } from 'prom-client';
import { LonghaulError } from '../contracts/error-codes.ts';
import { newId } from '../contracts/ids.ts';
import { LIMITS } from '../contracts/limits.ts';
import { isOutage, type Pool } from '../db/pool.ts';
import { listScriptedCalls } from '../db/queries/scripted-calls.ts';
import type { Logger } from '../telemetry/logger.ts';
import { Authenticator, mayCall } from './auth.ts';
import { serveDirect } from './calls/direct.ts';
import { readCallKey } from './calls/idempotency-key.ts';
import { LedgerWriter } from './calls/ledger-writer.ts';
import type { ModelRequest } from './calls/model-request.ts';
import { RecordedCalls } from './calls/recorded.ts';
import type { GatewayConfig } from './config.ts';
import { parseJsonObject, readBody, sendError, sendJson } from './http.ts';
import { GatewayMetrics } from './metrics.ts';
import { ListPrices, type PriceBook } from './prices/price-book.ts';
import type { Protocol } from './protocol.ts';
import { createHttpProvider } from './providers/http-provider.ts';
import type { Provider, ProviderRequest } from './providers/port.ts';
import { createScriptedProvider } from './providers/scripted-provider.ts';
import { describeModel, listModels, routeModel, SCRIPTED_MODEL, type ProviderName } from './routing/models.ts';
import { readRequestFacts, withModel, withUsageReport } from './routing/request.ts';

interface GatewayDeps {
  pool: Pool;
  config: GatewayConfig;
  logger: Logger;
  /** Where the gateway's metrics are registered; default: nowhere. */
  registry?: Registry;
}

/** The LLM data plane, to be mounted ahead of any framework. */
export interface Gateway {
  /** Answers the request and returns true, or returns false when the path is not the gateway's. */
  handle(req: IncomingMessage, res: ServerResponse): boolean;
  /** Ends when running calls have ended or had their grace, and every ledger row is written. */
  close(graceMs?: number): Promise<void>;
}

interface Exchange {
  req: IncomingMessage;
  res: ServerResponse;
  url: URL;
  requestId: string;
}
type Handler = (exchange: Exchange) => Promise<void>;
interface Endpoint {
  method: 'GET' | 'POST';
  protocol: Protocol;
  handler: Handler;
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
  readonly #providers = new Map<ProviderName, Provider>();
  readonly #authenticator: Authenticator;
  readonly #metrics: GatewayMetrics;
  readonly #ledger: LedgerWriter;
  readonly #prices: PriceBook = new ListPrices();
  readonly #recorded: RecordedCalls;
  readonly #endpoints: ReadonlyMap<string, Endpoint>;

  constructor(deps: GatewayDeps) {
    this.#deps = deps;
    const { config, pool, logger } = deps;
    if (config.anthropic) {
      this.#providers.set('anthropic', createHttpProvider({ name: 'anthropic', upstream: config.anthropic }));
    }
    if (config.openai) this.#providers.set('openai', createHttpProvider({ name: 'openai', upstream: config.openai }));
    if (config.scripted) this.#providers.set('scripted', createScriptedProvider(pool));
    this.#authenticator = new Authenticator(pool);
    this.#metrics = new GatewayMetrics(deps.registry);
    this.#ledger = new LedgerWriter(pool, logger, config.timeouts.totalMs);
    this.#recorded = new RecordedCalls({
      pool,
      logger,
      authenticator: this.#authenticator,
      prices: this.#prices,
      metrics: this.#metrics,
      timeouts: config.timeouts,
      leaseMs: config.leaseMs,
    });
    this.#endpoints = new Map(this.#listEndpoints());
  }

  #listEndpoints(): [string, Endpoint][] {
    const model = (protocol: Protocol, operation: ProviderRequest['operation'] = 'generate'): Endpoint => ({
      method: 'POST',
      protocol,
      handler: (exchange) => this.#serveModel(exchange, protocol, operation),
    });
    const scriptedCalls: Endpoint = { method: 'GET', protocol: 'messages', handler: (e) => this.#scriptedCalls(e) };
    return [
      ['/v1/messages', model('messages')],
      ['/v1/messages/count_tokens', model('messages', 'count_tokens')],
      ['/v1/chat/completions', model('chat')],
      ['/v1/responses', model('responses')],
      ['/v1/models', { method: 'GET', protocol: 'messages', handler: (e) => this.#models(e) }],
      ['/v1/model-calls/cancel', { method: 'POST', protocol: 'messages', handler: (e) => this.#cancel(e) }],
      ...(this.#deps.config.scripted ? [['/scripted/calls', scriptedCalls] as [string, Endpoint]] : []),
    ];
  }

  handle(req: IncomingMessage, res: ServerResponse): boolean {
    const path = (req.url ?? '').split('?', 1)[0] ?? '';
    const endpoint = this.#endpoints.get(path);
    if (endpoint === undefined) return false;
    void this.#answer(req, res, endpoint);
    return true;
  }

  async close(graceMs: number = CLOSE_GRACE_MS): Promise<void> {
    await this.#recorded.close(graceMs);
    await Promise.all(Array.from(this.#providers.values(), (provider) => provider.close()));
    await this.#ledger.drain();
  }

  async #answer(req: IncomingMessage, res: ServerResponse, endpoint: Endpoint): Promise<void> {
    const requestId = newId('request');
    try {
      if (req.method !== endpoint.method) {
        throw new LonghaulError('method_not_allowed', `this path takes ${endpoint.method} only`);
      }
      await endpoint.handler({ req, res, requestId, url: new URL(req.url ?? '/', 'http://gateway') });
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
    { req, res, url, requestId }: Exchange,
    protocol: Protocol,
    operation: ProviderRequest['operation'],
  ): Promise<void> {
    // The body is read while the key is looked up; a refused key still waits for it, so that the answer is read.
    const [caller, body] = await Promise.all([this.#authenticator.authenticate(req), readBody(req)]);
    const { model, stream } = readRequestFacts(body);
    const route = routeModel(this.#deps.config, protocol, model);
    if (!mayCall(caller, model)) throw new LonghaulError('model_not_allowed', `this key may not call "${model}"`);
    const provider = this.#providers.get(route.provider);
    if (provider === undefined) throw new LonghaulError('model_not_found', `no provider serves "${model}"`);
    const named = route.providerModel === model ? body : withModel(body, route.providerModel);
    const request: ModelRequest = {
      res,
      requestId,
      protocol,
      caller,
      provider,
      model: route.providerModel,
      requestedModel: model,
      modelDeployment: null,
      isStream: stream,
      upstream: {
        protocol,
        operation,
        model: route.providerModel,
        body: withUsageReport(protocol, named, stream),
        headers: protocolHeaders(req),
        search: url.searchParams.get('beta') === 'true' ? '?beta=true' : '',
        sessionId: caller.attribution.sessionId ?? undefined,
      },
    };
    const key = req.headers['idempotency-key'];
    if (operation === 'generate' && typeof key === 'string') {
      await this.#recorded.serve(request, readCallKey(caller, key));
      return;
    }
    const shared = { authenticator: this.#authenticator, metrics: this.#metrics, prices: this.#prices };
    const { pool, config } = this.#deps;
    await serveDirect({ ...shared, pool, ledger: this.#ledger, timeouts: config.timeouts }, request);
  }

  async #models({ req, res, requestId }: Exchange): Promise<void> {
    const caller = await this.#authenticator.authenticate(req);
    const data = listModels(this.#deps.config)
      .filter((model) => mayCall(caller, model.id))
      .map(describeModel);
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

  async #scriptedCalls({ req, res, url, requestId }: Exchange): Promise<void> {
    const caller = await this.#authenticator.authenticate(req);
    const sessionId = url.searchParams.get('session');
    if (sessionId === null) throw new LonghaulError('invalid_request', 'name the session', { field: 'session' });
    const own = caller.attribution.sessionId;
    if (caller.virtualKey !== undefined && own !== sessionId) {
      throw new LonghaulError('forbidden', 'this key is bound to another session');
    }
    const rows = await listScriptedCalls(this.#deps.pool, sessionId, LIMITS.pageSizeMax);
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

function protocolHeaders(req: IncomingMessage): Record<string, string> {
  const kept: Record<string, string> = {};
  for (const name of PROTOCOL_HEADERS) {
    const value = req.headers[name];
    if (typeof value === 'string') kept[name] = value;
  }
  return kept;
}
