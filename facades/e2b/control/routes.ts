import type { IncomingMessage, ServerResponse } from 'node:http';
import { findApiKey, type ApiKey } from '../../../db/queries/api-keys.ts';
import { sendJson, WireError } from '../http.ts';
import type { E2bDeps } from '../sandboxes.ts';
import * as sandboxes from './sandboxes.ts';
import * as snapshots from './snapshots.ts';

/** One request to the control plane. */
export interface ControlRequest {
  deps: E2bDeps;
  principal: ApiKey;
  req: IncomingMessage;
  /** What the pattern's `*` stands for. */
  id: string;
  query: Record<string, string>;
}

export interface ControlAnswer {
  status: number;
  body?: unknown;
  headers?: Record<string, string>;
}

type Handler = (request: ControlRequest) => Promise<ControlAnswer>;

/** Both generations of the wire: SDKs from 2.51 on use /v2 to create and connect, the ones before /sandboxes. */
const ROUTES: readonly (readonly [method: string, path: string, handler: Handler])[] = [
  ['POST', '/sandboxes', sandboxes.createOlder],
  ['POST', '/v2/sandboxes', (request) => sandboxes.create(request)],
  ['GET', '/sandboxes', sandboxes.listRunning],
  ['GET', '/v2/sandboxes', sandboxes.list],
  ['GET', '/sandboxes/*', sandboxes.get],
  ['DELETE', '/sandboxes/*', sandboxes.kill],
  ['POST', '/sandboxes/*/connect', sandboxes.connect],
  ['POST', '/v2/sandboxes/*/connect', sandboxes.connect],
  ['POST', '/sandboxes/*/resume', sandboxes.resume],
  ['POST', '/sandboxes/*/timeout', sandboxes.setTimeout],
  ['POST', '/sandboxes/*/refreshes', sandboxes.refresh],
  ['POST', '/sandboxes/*/pause', sandboxes.pause],
  ['PUT', '/sandboxes/*/network', sandboxes.setNetwork],
  ['GET', '/sandboxes/*/metrics', sandboxes.metrics],
  ['POST', '/sandboxes/*/snapshots', snapshots.create],
  ['GET', '/snapshots', snapshots.list],
  ['DELETE', '/templates/*', snapshots.remove],
];

const COMPILED = ROUTES.map(([method, path, handler]) => ({
  method,
  handler,
  pattern: new RegExp(`^${path.replace('*', '([A-Za-z0-9_-]{1,128})')}$`),
}));

/** Parts of E2B that Longhaul has no such thing for. */
const ABSENT = /^\/(v\d\/)?(templates|volumes|volumecontent|secrets|teams|sandboxes\/[^/]+\/(fork|logs))\b/;

/** Answers a request to the control plane; throws what `sendError` tells. */
export async function handleControl(deps: E2bDeps, req: IncomingMessage, res: ServerResponse, url: URL): Promise<void> {
  const method = req.method ?? 'GET';
  const matching = COMPILED.flatMap((route) => {
    const match = route.pattern.exec(url.pathname);
    return match === null ? [] : [{ ...route, id: match[1] ?? '' }];
  });
  const route = matching.find((each) => each.method === method);
  if (route === undefined) throw unknownRoute(method, url.pathname, matching.length > 0);
  const principal = await authenticate(deps, req);
  const answer = await route.handler({ deps, principal, req, id: route.id, query: readQuery(url) });
  if (answer.body === undefined) res.writeHead(answer.status, answer.headers).end();
  else sendJson(res, answer.status, answer.body, answer.headers);
}

function unknownRoute(method: string, path: string, isOtherMethod: boolean): WireError {
  if (isOtherMethod) return new WireError(405, `${method} is not possible here`);
  if (ABSENT.test(path)) return new WireError(501, `Longhaul does not have ${path.slice(0, 100)} of E2B`);
  return new WireError(404, `no route for ${method} ${path.slice(0, 200)}`);
}

async function authenticate(deps: E2bDeps, req: IncomingMessage): Promise<ApiKey> {
  const plain = req.headers['x-api-key'];
  const key = typeof plain === 'string' ? plain : /^Bearer +(\S+)$/i.exec(req.headers.authorization ?? '')?.[1];
  if (key === undefined || key === '') throw new WireError(401, 'an API key is needed: X-API-KEY');
  const principal = await findApiKey(deps.pool, key);
  if (principal === undefined) throw new WireError(401, 'the API key is not valid');
  if (!principal.scopes.includes('api')) throw new WireError(403, 'this key is for model calls only');
  return principal;
}

/** Lists come as one value with commas or as repeated values. */
function readQuery(url: URL): Record<string, string> {
  const names = [...new Set(url.searchParams.keys())];
  return Object.fromEntries(names.map((name) => [name, url.searchParams.getAll(name).join(',')]));
}
