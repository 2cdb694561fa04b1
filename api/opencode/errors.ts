import type { ErrorRequestHandler } from 'express';
import type { Logger } from '../../telemetry/logger.ts';
import { toLonghaulError } from '../errors.ts';

/** The names its clients know errors by. */
function nameOf(status: number): string {
  if (status === 404) return 'NotFoundError';
  if (status === 401 || status === 403) return 'ProviderAuthError';
  return status < 500 ? 'BadRequest' : 'UnknownError';
}

/** Errors in the words of its clients, with our own code; always JSON. */
export function facadeErrors(logger: Logger): ErrorRequestHandler {
  return (thrown: unknown, req, res, _next) => {
    const error = toLonghaulError(thrown);
    const requestId = String(res.getHeader('request-id'));
    if (error.status >= 500) {
      logger.error({ requestId, method: req.method, code: error.code, err: error.cause ?? error }, 'request failed');
    }
    if (res.headersSent) {
      res.destroy();
      return;
    }
    // Without it its clients say "unauthorized" and not what is wrong.
    if (error.status === 401) res.setHeader('www-authenticate', 'Basic realm="longhaul"');
    if (error.retryAfterMs !== undefined) res.setHeader('retry-after', Math.ceil(error.retryAfterMs / 1_000));
    const own = error.toBody(requestId);
    res.status(error.status).json({
      name: nameOf(error.status),
      message: error.message,
      data: { message: error.message, ...(error.status === 401 ? { providerID: 'longhaul' } : {}) },
      ...own,
    });
  };
}
