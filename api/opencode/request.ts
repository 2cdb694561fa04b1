import type { Request, Response } from 'express';
import type { z } from 'zod';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { withTransaction } from '../../db/pool.ts';
import type { Principal } from '../../db/queries/api-keys.ts';
import { authenticate } from '../auth.ts';
import type { Context, Endpoint } from '../endpoint.ts';
import { checkJson, checkText } from '../request-json.ts';
import type { Services } from '../services.ts';
import { parseWith } from '../validation.ts';

/** One request of a client of OpenCode. */
export interface Call {
  req: Request;
  res: Response;
  services: Services;
  principal: Principal;
  params: Record<string, string>;
  /** Checked text; each name once. */
  query: ReadonlyMap<string, string>;
  startedMs: number;
}

/** Its clients know passwords only: the API key is the password of any user. */
export async function principalOf(services: Services, req: Request): Promise<Principal> {
  const basic = /^Basic +(\S+) *$/i.exec(req.headers.authorization ?? '')?.[1];
  if (basic === undefined) return authenticate(services.pool, req.headers);
  const pair = Buffer.from(basic, 'base64').toString('utf8');
  const key = pair.slice(pair.indexOf(':') + 1);
  // The header is built anew: whatever the text holds, it is one key or none.
  return authenticate(services.pool, { authorization: /^\S+$/.test(key) ? `Bearer ${key}` : undefined });
}

export function readQuery(req: Request): Map<string, string> {
  const start = req.url.indexOf('?');
  const query = new Map<string, string>();
  if (start === -1) return query;
  for (const [name, value] of new URLSearchParams(req.url.slice(start + 1))) {
    checkText(name, 'a query parameter');
    checkText(value, name.slice(0, 120));
    query.set(name, value);
  }
  return query;
}

/** A whole number of the query. */
export function queryInt(call: Call, name: string, limits: { min: number; max: number; absent: number }): number {
  const text = call.query.get(name);
  if (text === undefined || text === '') return limits.absent;
  const value = Number(text);
  if (!Number.isInteger(value) || value < limits.min) {
    throw new LonghaulError('invalid_request', `must be a whole number from ${limits.min}`, { field: name });
  }
  return Math.min(value, limits.max);
}

/** The body, which its clients leave out where nothing is to be said. */
export function readBody<T extends z.ZodType>(call: Call, schema: T): z.output<T> {
  const body: unknown = call.req.body ?? {};
  if (typeof body !== 'object' || body === null || Array.isArray(body)) {
    throw new LonghaulError('invalid_json', 'the body must be a JSON object');
  }
  checkJson(body);
  return parseWith(schema, body);
}

/** Runs work as an endpoint of ours would be run: one transaction, and deliveries once it is committed. */
export async function change<T>(call: Call, work: (context: Context) => Promise<T>): Promise<T> {
  const { services, principal } = call;
  const log = services.logger.child({ requestId: call.res.getHeader('request-id') });
  const deliveries: (() => Promise<unknown>)[] = [];
  const made = await withTransaction(services.pool, (tx) =>
    work({
      db: tx,
      principal,
      services,
      log,
      request: { startedMs: call.startedMs, traceparent: undefined },
      afterCommit: (deliver) => deliveries.push(deliver),
    }),
  );
  for (const deliver of deliveries) {
    try {
      await deliver();
    } catch (error) {
      log.warn({ err: error, path: call.req.path }, 'not delivered yet; the sweep will');
    }
  }
  return made;
}

/** One of our own endpoints, so that its rules hold here, too. */
export async function callEndpoint(
  context: Context,
  endpoint: Endpoint,
  given: { params?: Record<string, string>; body?: unknown },
): Promise<unknown> {
  const body = endpoint.body === undefined ? undefined : parseWith(endpoint.body, given.body);
  return endpoint.run(context, { params: given.params ?? {}, query: {}, body });
}
