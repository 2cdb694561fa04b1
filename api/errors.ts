import type { ErrorRequestHandler, RequestHandler } from 'express';
import { LonghaulError } from '../contracts/error-codes.ts';
import { isOutage } from '../db/pool.ts';
import type { Logger } from '../telemetry/logger.ts';

/** Text that Postgres cannot store or compare; validation should have caught it, the client is still told which side erred. */
const BAD_VALUE_CODES = new Set(['22021', '22P02', '22P05', '22003', '22007', '22008']);
/** Statement timeout and lock contention: the same request may pass a moment later. */
const BUSY_CODES = new Set(['57014', '55P03', '40001', '40P01']);

/** Any thrown thing as an entry of the catalogue. */
export function toLonghaulError(error: unknown): LonghaulError {
  if (error instanceof LonghaulError) return error;
  if (error instanceof URIError) return new LonghaulError('invalid_path', 'the URL is not valid', { cause: error });
  if (isOutage(error))
    return new LonghaulError('database_unavailable', 'the database cannot be reached', { cause: error });
  const { code, type, status } = error as { code?: unknown; type?: unknown; status?: unknown };
  if (typeof code === 'string' && BUSY_CODES.has(code)) {
    return new LonghaulError('database_unavailable', 'the database is busy', { cause: error });
  }
  if (typeof code === 'string' && BAD_VALUE_CODES.has(code)) {
    return new LonghaulError('invalid_request', 'a value cannot be stored', { cause: error });
  }
  return typeof type === 'string' && typeof status === 'number'
    ? bodyError(type, status, error)
    : new LonghaulError('internal', 'something went wrong here', { cause: error });
}

/** Errors of the body reader. */
function bodyError(type: string, status: number, cause: unknown): LonghaulError {
  switch (type) {
    case 'entity.too.large':
    case 'parameters.too.many':
      return new LonghaulError('request_too_large', 'the body is too large', { cause });
    case 'entity.parse.failed':
      return new LonghaulError('invalid_json', 'the body is not JSON', { cause });
    case 'charset.unsupported':
    case 'encoding.unsupported':
      return new LonghaulError('unsupported_media_type', 'the encoding of the body is not supported', { cause });
    default:
      return status < 500
        ? new LonghaulError('invalid_request', 'the body cannot be read', { cause })
        : new LonghaulError('internal', 'something went wrong here', { cause });
  }
}

/** The last middleware: every error leaves as one JSON shape, with its status. */
export function errorHandler(logger: Logger): ErrorRequestHandler {
  return (thrown: unknown, req, res, _next) => {
    const requestId = String(res.getHeader('request-id'));
    const error = toLonghaulError(thrown);
    if (error.status >= 500) {
      logger.error({ requestId, method: req.method, code: error.code, err: error.cause ?? error }, 'request failed');
    }
    if (res.headersSent) {
      res.destroy();
      return;
    }
    if (error.retryAfterMs !== undefined) res.setHeader('retry-after', Math.ceil(error.retryAfterMs / 1_000));
    res.status(error.status).json(error.toBody(requestId));
  };
}

export const routeNotFound: RequestHandler = (req) => {
  throw new LonghaulError('route_not_found', `no route for ${req.method} ${req.path.slice(0, 200)}`);
};

/** For a path that exists with other methods. */
export function methodNotAllowed(methods: string[]): RequestHandler {
  return (req, res) => {
    res.setHeader('allow', methods.join(', '));
    throw new LonghaulError('method_not_allowed', `${req.method} is not possible here; use ${methods.join(' or ')}`);
  };
}
