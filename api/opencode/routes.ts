import type { Express, RequestHandler } from 'express';
import express from 'express';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { methodNotAllowed, routeNotFound } from '../errors.ts';
import type { Services } from '../services.ts';
import { modelIds, namedAgents, PATHS, PROJECT, renderAgent, renderProvider } from './catalogue.ts';
import { facadeErrors } from './errors.ts';
import type { Place } from './follower.ts';
import { getPermissions, replyPermission, respondPermission } from './permissions.ts';
import { promptAndWait, promptAsync } from './prompt.ts';
import type { Call } from './request.ts';
import { principalOf, readQuery } from './request.ts';
import {
  abortSession,
  getMessage,
  getMessages,
  getOneSession,
  getSessions,
  getStatuses,
  getTodos,
  patchSession,
  postSession,
  removeSession,
  sessionOf,
} from './session-routes.ts';
import { VERSION } from './session-view.ts';
import { readFrameId, TeamStream } from './stream.ts';
import { DIRECTORY, PROVIDER_ID } from './wire.ts';

/** Where the API of OpenCode is mounted. */
const BASE_PATH = '/opencode';

type Method = 'get' | 'post' | 'patch' | 'delete';
/** Undefined is answered with 204, unless the handler has answered itself. */
type Handler = (call: Call) => unknown;
type Route = readonly [method: Method, path: string, handler: Handler];

const located = (data: unknown): object => ({ location: { directory: DIRECTORY, project: PROJECT }, data });

/** What is empty here, and why that is true: files, editors and processes are in sandboxes, not beside this server. */
const EMPTY_LISTS = [
  '/command',
  '/experimental/tool/ids',
  '/experimental/workspace',
  '/experimental/workspace/status',
  '/file/status',
  '/find/file',
  '/formatter',
  '/lsp',
  '/project/:projectID/directories',
  '/pty',
  '/question',
  '/skill',
];
const EMPTY_OBJECTS = ['/experimental/resource', '/mcp', '/provider/auth', '/vcs'];
const LOCATED_LISTS = [
  '/api/command',
  '/api/integration',
  '/api/reference',
  '/api/skill',
  '/api/agent',
  '/api/model',
  '/api/provider',
];

/** Every route there is. */
export const OPENCODE_ROUTES: readonly Route[] = [
  ['get', '/global/health', () => ({ healthy: true, version: VERSION })],
  ['get', '/global/config', config],
  ['get', '/global/event', (call) => follow(call, call.query.get('directory') ?? DIRECTORY)],
  ['get', '/event', (call) => follow(call, undefined)],
  ['get', '/path', () => PATHS],
  ['get', '/project', () => [PROJECT]],
  ['get', '/project/current', () => PROJECT],
  ['get', '/config', config],
  ['get', '/config/providers', providers],
  ['get', '/provider', providerList],
  ['get', '/agent', agents],
  ['get', '/session', getSessions],
  ['post', '/session', postSession],
  ['get', '/session/status', getStatuses],
  ['get', '/session/:sessionID', getOneSession],
  ['patch', '/session/:sessionID', patchSession],
  ['delete', '/session/:sessionID', removeSession],
  ['get', '/session/:sessionID/message', getMessages],
  ['post', '/session/:sessionID/message', promptAndWait],
  ['get', '/session/:sessionID/message/:messageID', getMessage],
  ['post', '/session/:sessionID/prompt_async', promptAsync],
  ['post', '/session/:sessionID/abort', abortSession],
  ['get', '/session/:sessionID/todo', getTodos],
  ['get', '/session/:sessionID/diff', emptyOfSession],
  ['get', '/session/:sessionID/children', emptyOfSession],
  ['post', '/session/:sessionID/permissions/:permissionID', respondPermission],
  ['get', '/permission', getPermissions],
  ['post', '/permission/:requestID/reply', replyPermission],
  ['get', '/experimental/capabilities', () => ({ backgroundSubagents: false })],
  ['get', '/experimental/console', () => ({ consoleManagedProviders: [], switchableOrgCount: 0 })],
  ['get', '/api/location', () => ({ directory: DIRECTORY, project: PROJECT })],
  ['post', '/log', () => true],
  ['post', '/instance/dispose', () => true],
  ['get', '/whoami', () => ({ ok: true, auth: 'required' })],
  ['get', '/agents', savedAgents],
  ['get', '/v1/models', modelList],
  ...EMPTY_LISTS.map((path): Route => ['get', path, () => []]),
  ...EMPTY_OBJECTS.map((path): Route => ['get', path, () => ({})]),
  ...LOCATED_LISTS.map((path): Route => ['get', path, () => located([])]),
];

/** Mounts the API of OpenCode v1: a view of the same log, with no state of its own. */
export function mountOpencode(app: Express, services: Services): void {
  const router = express.Router();
  const methodsOf = new Map<string, string[]>();
  for (const [method, path, handler] of OPENCODE_ROUTES) {
    router[method](path, handlerOf(handler, services));
    methodsOf.set(path, [...(methodsOf.get(path) ?? []), method.toUpperCase()]);
  }
  for (const [path, methods] of methodsOf) router.all(path, methodNotAllowed(methods));
  router.use(routeNotFound);
  router.use(facadeErrors(services.logger));
  app.use(BASE_PATH, router);
}

function handlerOf(handler: Handler, services: Services): RequestHandler {
  return async (req, res) => {
    const startedMs = Date.now();
    const principal = await principalOf(services, req);
    const call: Call = {
      req,
      res,
      services,
      principal,
      params: pathParams(req.params),
      query: readQuery(req),
      startedMs,
    };
    const answer = await handler(call);
    if (res.headersSent || res.destroyed) return;
    if (answer === undefined) res.status(204).end();
    else res.json(answer);
  };
}

/** Ids are plain words; anything else in a path cannot name a row. */
function pathParams(given: Record<string, unknown>): Record<string, string> {
  const params: Record<string, string> = {};
  for (const [name, value] of Object.entries(given)) {
    if (typeof value !== 'string' || !/^[A-Za-z0-9_-]{1,128}$/.test(value)) {
      throw new LonghaulError('not_found', `there is no such ${name.replace(/ID$/, '')}`);
    }
    params[name] = value;
  }
  return params;
}

async function follow({ req, res, services, principal }: Call, directory: string | undefined): Promise<void> {
  const stream = new TeamStream({
    res,
    pool: services.pool,
    log: services.logger,
    teamId: principal.teamId,
    directory,
    after: lastPlace(req.headers['last-event-id']),
  });
  const remove = services.hub.observe(stream);
  services.metrics.openStreams.inc();
  res.once('close', () => {
    remove();
    services.metrics.openStreams.dec();
  });
  await stream.open();
}

function lastPlace(header: string | string[] | undefined): Place | undefined {
  if (header === undefined || header === '') return undefined;
  const place = readFrameId(String(header));
  if (place !== undefined) return place;
  throw new LonghaulError('invalid_request', 'must be the id of a frame', { field: 'Last-Event-ID' });
}

async function agents({ services, principal }: Call): Promise<object[]> {
  const named = await namedAgents(services.pool, principal.teamId);
  return Array.from(named, ([name, row]) => renderAgent(name, row));
}

async function savedAgents({ services, principal }: Call): Promise<object[]> {
  const named = await namedAgents(services.pool, principal.teamId);
  return Array.from(named, ([name, row]) => ({
    id: row.id,
    name,
    system_prompt: row.definition.system ?? '',
    base_agent: row.definition.harness,
    created_at: row.createdAt.toISOString(),
  }));
}

async function models({ services, principal }: Call): Promise<{ ids: string[]; defaults: Record<string, string> }> {
  const ids = await modelIds(services.pool, principal.teamId);
  const [first] = ids;
  return { ids, defaults: first === undefined ? {} : { [PROVIDER_ID]: first } };
}

async function providers(call: Call): Promise<object> {
  const { ids, defaults } = await models(call);
  return { providers: [renderProvider(ids)], default: defaults };
}

async function providerList(call: Call): Promise<object> {
  const { ids, defaults } = await models(call);
  return { all: [renderProvider(ids)], default: defaults, connected: [PROVIDER_ID], failed: [] };
}

async function config(call: Call): Promise<object> {
  const { ids } = await models(call);
  return {
    share: 'disabled',
    autoupdate: false,
    ...(ids[0] === undefined ? {} : { model: `${PROVIDER_ID}/${ids[0]}` }),
    enabled_providers: [PROVIDER_ID],
  };
}

async function modelList(call: Call): Promise<object> {
  const { ids } = await models(call);
  return { object: 'list', data: ids.map((id) => ({ id, object: 'model', created: 0, owned_by: PROVIDER_ID })) };
}

async function emptyOfSession(call: Call): Promise<never[]> {
  await sessionOf(call);
  return [];
}
