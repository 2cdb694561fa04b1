import type { Request, Response } from 'express';
import { z } from 'zod';
import type { Queryable } from '../db/pool.ts';
import type { Principal } from '../db/queries/api-keys.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { Services } from './services.ts';

export interface Context {
  /** For POST and DELETE the one transaction of the request, else the pool. */
  db: Queryable;
  principal: Principal;
  services: Services;
  log: Logger;
  /** For traces. */
  request: { startedMs: number; traceparent: string | undefined };
  /** Work for after the commit: a failure is logged and left to the sweep, the answer stands. */
  afterCommit: (work: () => Promise<unknown>) => void;
}

interface Described {
  path: string;
  summary: string;
  tag: string;
  description?: string;
}

/** A JSON endpoint with its shapes; type, validation and OpenAPI derive from them. */
export interface Endpoint extends Described {
  kind: 'json';
  method: 'get' | 'post' | 'delete';
  params: z.ZodObject;
  query: z.ZodObject;
  /** Absent: the body must be empty or `{}`. */
  body: z.ZodType | undefined;
  response: z.ZodType;
  /** Fields of the answer that are shown once: a repeat under an Idempotency-Key gets null. */
  secrets?: readonly string[];
  /** The body holds secrets: nothing may be stored from which it could be guessed. */
  holdsSecrets?: boolean;
  run(context: Context, input: { params: unknown; query: unknown; body: unknown }): Promise<unknown>;
}

/** An endpoint that writes its own answer (stream, text, page). */
export interface RawEndpoint extends Described {
  kind: 'raw';
  method: 'get' | 'post';
  public: boolean;
  /** What a POST takes, where that is not JSON. */
  form?: z.ZodObject;
  params: z.ZodObject;
  query: z.ZodObject;
  contentType: string;
  /** Shape of the JSON it answers with, where the caller does not ask for `contentType`. */
  json?: z.ZodType;
  handle(input: {
    req: Request;
    res: Response;
    services: Services;
    /** Undefined on public endpoints. */
    principal: Principal | undefined;
    params: unknown;
    query: unknown;
  }): Promise<void>;
}

export type AnyEndpoint = Endpoint | RawEndpoint;

interface EndpointSpec<
  P extends z.ZodObject,
  Q extends z.ZodObject,
  B extends z.ZodType,
  R extends z.ZodType,
> extends Described {
  method: 'get' | 'post' | 'delete';
  params?: P;
  query?: Q;
  body?: B;
  response: R;
  secrets?: readonly (keyof z.output<R> & string)[];
  holdsSecrets?: boolean;
  handle: (
    context: Context,
    input: { params: z.output<P>; query: z.output<Q>; body: z.output<B> },
  ) => Promise<z.output<R>>;
}

const nothing = z.strictObject({});

/** Declares a JSON endpoint. */
export function endpoint<
  R extends z.ZodType,
  P extends z.ZodObject = typeof nothing,
  Q extends z.ZodObject = typeof nothing,
  B extends z.ZodType = z.ZodUndefined,
>(spec: EndpointSpec<P, Q, B, R>): Endpoint {
  const { handle, params, query, body, ...rest } = spec;
  return {
    ...rest,
    kind: 'json',
    params: params ?? nothing,
    query: query ?? nothing,
    body,
    // The router has parsed the three with the schemas above, so they have the types of those.
    run: (context, input) => handle(context, input as { params: z.output<P>; query: z.output<Q>; body: z.output<B> }),
  };
}

/** Declares an endpoint that writes its own answer. */
export function rawEndpoint<P extends z.ZodObject = typeof nothing, Q extends z.ZodObject = typeof nothing>(
  spec: Described & {
    method?: 'get' | 'post';
    public?: boolean;
    form?: z.ZodObject;
    params?: P;
    query?: Q;
    contentType: string;
    json?: z.ZodType;
    handle: (input: {
      req: Request;
      res: Response;
      services: Services;
      principal: Principal | undefined;
      params: z.output<P>;
      query: z.output<Q>;
    }) => Promise<void>;
  },
): RawEndpoint {
  const { handle, params, query, ...rest } = spec;
  return {
    ...rest,
    kind: 'raw',
    method: spec.method ?? 'get',
    public: spec.public === true,
    params: params ?? nothing,
    query: query ?? nothing,
    handle: (input) => handle({ ...input, params: input.params as z.output<P>, query: input.query as z.output<Q> }),
  };
}
