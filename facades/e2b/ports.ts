import { request as httpRequest, type IncomingMessage, type ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import { WireError } from './http.ts';
import { bounded, liveSandbox, type E2bDeps } from './sandboxes.ts';
import { isSame } from './tokens.ts';

const TOKEN_HEADER = 'e2b-traffic-access-token';
/** Of one connection only, or ours alone. */
const DROPPED = new Set(['connection', 'keep-alive', 'proxy-connection', 'upgrade', 'host', TOKEN_HEADER]);

export const ENVD_PORT = 49_983;

/** Which sandbox and which of its ports a request is for: by E2B's headers, or by a host name `<port>-<id>.<domain>`. */
export function addressed(req: IncomingMessage): { sandboxId: string; port: number } | undefined {
  const id = req.headers['e2b-sandbox-id'];
  const port = req.headers['e2b-sandbox-port'];
  if (typeof id === 'string' && /^[a-z0-9]{1,64}$/.test(id)) {
    return { sandboxId: id, port: typeof port === 'string' && /^\d{1,5}$/.test(port) ? Number(port) : ENVD_PORT };
  }
  const match = /^(\d{1,5})-([a-z0-9]{1,64})\./.exec(req.headers.host ?? '');
  return match === null ? undefined : { sandboxId: match[2] ?? '', port: Number(match[1]) };
}

/** The connection to a port, for whoever has the sandbox's traffic token, or for all where its program wanted that. */
async function open(deps: E2bDeps, req: IncomingMessage, sandboxId: string, port: number): Promise<Duplex> {
  const live = await liveSandbox(deps, sandboxId);
  const given = req.headers[TOKEN_HEADER];
  const isPublic = live.row.network['allowPublicTraffic'] === true;
  if (!isPublic && !(typeof given === 'string' && isSame(given, deps.tokens.traffic(sandboxId)))) {
    throw new WireError(403, `${TOKEN_HEADER}: the traffic token of the sandbox is missing or wrong`);
  }
  const target = await deps.provider.openPort(live.ref, port, bounded());
  if (target.type !== 'stream') throw new WireError(501, 'the ports of this provider cannot be reached from here');
  try {
    return await target.connect();
  } catch (error) {
    throw new WireError(502, `the sandbox is running but port is not open: ${port}`, { cause: error });
  }
}

/** Passes a request on to a program of a sandbox. */
export async function proxyPort(
  deps: E2bDeps,
  req: IncomingMessage,
  res: ServerResponse,
  to: { sandboxId: string; port: number },
): Promise<void> {
  const socket = await open(deps, req, to.sandboxId, to.port);
  await new Promise<void>((resolve, reject) => {
    const upstream = httpRequest({
      createConnection: () => socket,
      method: req.method,
      path: req.url,
      headers: passedOn(req, to.port),
    });
    res.once('close', () => {
      upstream.destroy();
      socket.destroy();
      resolve();
    });
    upstream.once('error', (error) =>
      reject(new WireError(502, `the sandbox is running but port is not open: ${to.port}`, { cause: error })),
    );
    upstream.once('response', (answer) => {
      const headers = Object.entries(answer.headers).filter(([name]) => !DROPPED.has(name));
      res.writeHead(answer.statusCode ?? 502, Object.fromEntries(headers));
      answer.pipe(res);
    });
    req.pipe(upstream);
  });
}

function passedOn(req: IncomingMessage, port: number): Record<string, string | string[]> {
  const headers = Object.entries(req.headers).flatMap(([name, value]) =>
    value === undefined || DROPPED.has(name) ? [] : [[name, value] as const],
  );
  return { ...Object.fromEntries(headers), host: `localhost:${port}`, connection: 'close' };
}
