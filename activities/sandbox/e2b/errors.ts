import { LonghaulError, type ErrorCode } from '../../../contracts/error-codes.ts';

/** The SDK does not tell how long a limit holds; it has waited as the control plane asked before it gave up. */
const RETRY_AFTER_MS = 5_000;

/** By class name: two releases of the SDK have classes of their own. */
const BY_NAME: Record<string, ErrorCode> = {
  AuthenticationError: 'sandbox_auth',
  RateLimitError: 'sandbox_busy',
  ServiceBusyError: 'sandbox_busy',
  NotEnoughSpaceError: 'sandbox_quota',
  SandboxNotFoundError: 'sandbox_not_found',
  FileNotFoundError: 'sandbox_invalid',
  InvalidArgumentError: 'sandbox_invalid',
  TimeoutError: 'sandbox_unavailable',
  TemplateError: 'sandbox_unsupported',
};

function codeOf(error: Error): ErrorCode {
  const byName = BY_NAME[error.name];
  if (byName !== undefined) return byName;
  const status = (error as { statusCode?: unknown }).statusCode;
  if (status === 401 || status === 403) return 'sandbox_auth';
  if (status === 404) return 'sandbox_not_found';
  if (status === 409) return 'sandbox_busy';
  if (status === 501) return 'sandbox_unsupported';
  if (status === 507) return 'sandbox_quota';
  return typeof status === 'number' && status < 500 ? 'sandbox_invalid' : 'sandbox_unavailable';
}

/** An error of the SDK, of the network below it, or a signal, as the port names it. */
export function toPortError(error: unknown, signal?: AbortSignal): unknown {
  if (error instanceof LonghaulError) return error;
  if (signal?.aborted === true) return signal.reason;
  if (!(error instanceof Error)) return new LonghaulError('sandbox_unavailable', 'E2B failed', { cause: error });
  const code = codeOf(error);
  const options = code === 'sandbox_busy' ? { cause: error, retryAfterMs: RETRY_AFTER_MS } : { cause: error };
  return new LonghaulError(code, `E2B: ${error.message.slice(0, 300)}`, options);
}

/** Does `work`, and throws as the port does. */
export async function attempt<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  try {
    signal.throwIfAborted();
    return await work();
  } catch (error) {
    throw toPortError(error, signal);
  }
}
