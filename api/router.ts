import { createHash, createHmac } from 'node:crypto';
import canonicalize from 'canonicalize';
import type { Express, Request, RequestHandler, Response } from 'express';
import { LonghaulError } from '../contracts/error-codes.ts';
import { withTransaction } from '../db/pool.ts';
import type { Principal } from '../db/queries/api-keys.ts';
import { authenticate, keyOf } from './auth.ts';
import type { AnyEndpoint, Context, Endpoint, RawEndpoint } from './endpoint.ts';
import { methodNotAllowed } from './errors.ts';
import { idempotencyKey, onceUnderKey } from './idempotency.ts';
import { checkJson } from './request-json.ts';
import type { Services } from './services.ts';
import { parseWith, readQuery } from './validation.ts';

/** Puts the endpoints into the app, and a 405 behind each path. */
export function mount(app: Express, endpoints: readonly AnyEndpoint[], services: Services): void {
  const methodsOf = new Map<string, string[]>();
  for (const item of endpoints) {
    const path = item.path.replaceAll(/\{(\w+)\}/g, ':$1');
    const handler = item.kind === 'json' ? jsonHandler(item, services) : rawHandler(item, services);
    app[item.method](path, handler);
    methodsOf.set(path, [...(methodsOf.get(path) ?? []), item.method.toUpperCase()]);
  }
  for (const [path, methods] of methodsOf) app.all(path, methodNotAllowed(methods));
}

function rawHandler(item: RawEndpoint, services: Services): RequestHandler {
  return async (req, res) => {
    services.metrics.watch(res, item);
    const principal = item.public ? undefined : await authenticate(services.pool, req.headers);
    await item.handle({
      req,
      res,
      services,
      principal,
      params: parseWith(item.params, pathParams(req)),
      query: parseWith(item.query, readQuery(req.url, item.query)),
    });
  };
}

function jsonHandler(item: Endpoint, services: Services): RequestHandler {
  return async (req, res) => {
    const startedMs = Date.now();
    services.metrics.watch(res, item);
    const principal = await authenticate(services.pool, req.headers);
    const body: unknown = readBody(item, req);
    const input = {
      params: parseWith(item.params, pathParams(req)),
      query: parseWith(item.query, readQuery(req.url, item.query)),
      body: item.body === undefined ? undefined : parseWith(item.body, body),
    };
    const request = { startedMs, traceparent: req.headers['traceparent'] as string | undefined };
    const log = services.logger.child({ requestId: res.getHeader('request-id') });
    if (item.method === 'get') {
      res.json(
        await item.run({ db: services.pool, principal, services, log, request, afterCommit: refuseChange }, input),
      );
      return;
    }
    await change({ item, req, res, services, principal, body, input, log, request });
  };
}

function refuseChange(): never {
  throw new Error('a GET changes nothing');
}

interface Change {
  item: Endpoint;
  req: Request;
  res: Response;
  services: Services;
  principal: Principal;
  body: unknown;
  input: { params: unknown; query: unknown; body: unknown };
  log: Context['log'];
  request: Context['request'];
}

/** One transaction: idempotency key, work and stored answer commit together, deliveries follow. */
async function change(asked: Change): Promise<void> {
  const { item, req, res, services, principal, body, input, log, request } = asked;
  const deliveries: (() => Promise<unknown>)[] = [];
  const { response, replayed } = await withTransaction(services.pool, (tx) =>
    onceUnderKey(tx, {
      principalId: principal.id,
      key: item.method === 'post' ? idempotencyKey(req) : undefined,
      route: `${item.method} ${req.path}`,
      bodyDigest: () => digest(body, item.holdsSecrets === true ? keyOf(req.headers) : undefined),
      work: () => {
        const given = { principal, services, log, request };
        return item.run({ ...given, db: tx, afterCommit: (work) => deliveries.push(work) }, input);
      },
      storable: (made) => storable(item, made),
    }),
  );
  for (const deliver of deliveries) {
    try {
      await deliver();
    } catch (error) {
      log.warn({ err: error, path: item.path }, 'not delivered yet; the sweep will');
    }
  }
  if (replayed) res.setHeader('idempotent-replayed', 'true');
  res.json(response);
}

function storable({ secrets }: Endpoint, made: unknown): unknown {
  if (secrets === undefined) return made;
  return { ...(made as object), ...Object.fromEntries(secrets.map((name) => [name, null])) };
}

/** Ids of ours are plain words; anything else in a path cannot name a row. */
function pathParams(req: Request): Record<string, string> {
  const params: Record<string, string> = {};
  for (const [name, value] of Object.entries(req.params)) {
    if (typeof value !== 'string' || !/^[A-Za-z0-9_-]{1,128}$/.test(value)) {
      throw new LonghaulError('not_found', `there is no such ${name.replace(/_id$/, '').replaceAll('_', ' ')}`);
    }
    params[name] = value;
  }
  return params;
}

function readBody(item: Endpoint, req: Request): unknown {
  const body: unknown = req.body;
  const empty = body === undefined && !hasBody(req);
  if (!empty && body === undefined) {
    throw new LonghaulError('unsupported_media_type', 'the body must be JSON');
  }
  if (item.body === undefined) {
    const blank = empty || (typeof body === 'object' && body !== null && Object.keys(body).length === 0);
    if (!blank) {
      const field = typeof body === 'object' && body !== null ? Object.keys(body)[0] : undefined;
      throw new LonghaulError('invalid_request', 'this route takes no body', field === undefined ? {} : { field });
    }
    return {};
  }
  if (typeof body !== 'object' || body === null || Array.isArray(body)) {
    throw new LonghaulError('invalid_json', 'the body must be a JSON object');
  }
  checkJson(body);
  return body;
}

function hasBody(req: Request): boolean {
  return req.headers['transfer-encoding'] !== undefined || Number(req.headers['content-length'] ?? '0') > 0;
}

/**
 * With `key`, nobody who reads the stored digest can try passwords against it: the caller's key is random and is not stored.
 */
function digest(body: unknown, key: string | undefined): string {
  const hash = key === undefined ? createHash('sha256') : createHmac('sha256', key);
  return hash.update(canonicalize(body) ?? '').digest('hex');
}
