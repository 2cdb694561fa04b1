/** Why the data plane itself did not do what was asked, as the sandbox is told. */
export class EgressFailure extends Error {
  readonly status: number;
  readonly code: string;

  constructor(status: number, code: string, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'EgressFailure';
    this.status = status;
    this.code = code;
  }
}

/** Any error, as one that can be told. */
export function toFailure(error: unknown): EgressFailure {
  if (error instanceof EgressFailure) return error;
  const code = (error as NodeJS.ErrnoException | null)?.code ?? '';
  return new EgressFailure(
    502,
    'upstream_failed',
    `the connection broke off (${code === '' ? 'unknown' : code})`,
    error,
  );
}

/** Refusals that are over when something else of the sandbox has ended. */
const PASSING = new Set(['connections_exhausted', 'requests_at_once', 'sockets_exhausted']);

interface Told {
  status: number;
  code: string;
  message: string;
}

/** Body and headers of a refusal: the code where programs look, the reason where people and models do. */
export function toldAs({ status, code, message }: Told): { headers: [string, string][]; body: string } {
  const body = `${JSON.stringify({ type: 'error', error: { type: 'egress_error', code, message } })}\n`;
  const headers: [string, string][] = [
    ['content-type', 'application/json'],
    ['x-longhaul-egress', code],
    ['content-length', String(Buffer.byteLength(body))],
  ];
  if (PASSING.has(code)) headers.push(['retry-after', '1']);
  if (status === 407) headers.push(['proxy-authenticate', 'Basic realm="longhaul egress"']);
  return { headers, body };
}

const REASONS: Record<number, string> = {
  400: 'Bad Request',
  403: 'Forbidden',
  407: 'Proxy Authentication Required',
  413: 'Content Too Large',
  421: 'Misdirected Request',
  429: 'Too Many Requests',
  431: 'Request Header Fields Too Large',
  451: 'Unavailable For Legal Reasons',
  502: 'Bad Gateway',
  503: 'Service Unavailable',
  504: 'Gateway Timeout',
};

/** A whole HTTP/1.1 answer, for sockets nothing else answers on. */
export function rawAnswer(told: Told): string {
  const { headers, body } = toldAs(told);
  const lines = [...headers, ['connection', 'close']].map(([name, value]) => `${name}: ${value}\r\n`);
  return `HTTP/1.1 ${told.status} ${REASONS[told.status] ?? 'Refused'}\r\n${lines.join('')}\r\n${body}`;
}
