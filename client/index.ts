import type { z } from 'zod';
import type { AgentResource, agentCreate, agentUpdate } from '../contracts/agents.ts';
import type { ApprovalResource, approvalDecide } from '../contracts/approvals.ts';
import type {
  DeploymentResource,
  DeploymentRunResource,
  deploymentCreate,
  deploymentUpdate,
} from '../contracts/deployments.ts';
import type { EnvironmentResource, environmentCreate } from '../contracts/environments.ts';
import type { SessionEvent, eventsSend } from '../contracts/events.ts';
import type { KeyCreatedResource, KeyResource, keyCreate, keyUpdate } from '../contracts/keys.ts';
import type {
  effectivePrice,
  priceImport,
  priceImported,
  PriceResource,
  priceSet,
} from '../contracts/price-overrides.ts';
import type { agentEstimate, usagePercentiles, usageReport } from '../contracts/usage.ts';
import type { SessionResource, sessionCreate, sessionUpdate, usageByModel } from '../contracts/sessions.ts';
import type { SessionTraceResource } from '../contracts/traces.ts';
import type { FollowOptions, LiveFrame } from './events.ts';
import { followEvents } from './events.ts';
import type { ClientOptions, Query } from './http.ts';
import { Http } from './http.ts';

export { ApiError } from './errors.ts';
export type { FollowOptions, LiveFrame } from './events.ts';
export type { ClientOptions } from './http.ts';

export interface Paged<T> {
  data: T[];
  next_page: string | null;
}
type Deleted = { id: string; type: string };

/** Everything the API offers, typed by its own contracts. */
export type LonghaulClient = ReturnType<typeof createClient>;

/** A client of one Longhaul API. */
export function createClient(options: ClientOptions) {
  const http = new Http(options);
  return {
    agents: agentsOf(http),
    environments: environmentsOf(http),
    sessions: sessionsOf(http),
    approvals: approvalsOf(http),
    deployments: deploymentsOf(http),
    keys: keysOf(http),
    prices: pricesOf(http),
    usage: {
      report: (query: Query = {}) => http.get<z.infer<typeof usageReport>>('/v1/usage', query),
      percentiles: (query: Query = {}) => http.get<z.infer<typeof usagePercentiles>>('/v1/usage/percentiles', query),
    },
    deploymentRuns: {
      get: (id: string) => http.get<DeploymentRunResource>(`/v1/deployment_runs/${encodeURIComponent(id)}`),
      list: (query: Query = {}) => http.get<Paged<DeploymentRunResource>>('/v1/deployment_runs', query),
    },
  };
}

/** All items of a list, page after page. */
export async function* allOf<T>(list: (query: Query) => Promise<Paged<T>>, query: Query = {}): AsyncGenerator<T> {
  let page: string | undefined;
  do {
    const got = await list({ ...query, page });
    yield* got.data;
    page = got.next_page ?? undefined;
  } while (page !== undefined);
}

/** Paths of one collection's items. */
function pathsOf(collection: string): (id: string, rest?: string) => string {
  return (id, rest = '') => `/v1/${collection}/${encodeURIComponent(id)}${rest}`;
}

function agentsOf(http: Http) {
  const at = pathsOf('agents');
  return {
    create: (body: z.input<typeof agentCreate>) => http.post<AgentResource>('/v1/agents', body),
    get: (id: string, query: { version?: number } = {}) => http.get<AgentResource>(at(id), query),
    list: (query: Query = {}) => http.get<Paged<AgentResource>>('/v1/agents', query),
    update: (id: string, body: z.input<typeof agentUpdate>) => http.post<AgentResource>(at(id), body),
    versions: (id: string, query: Query = {}) => http.get<Paged<AgentResource>>(at(id, '/versions'), query),
    archive: (id: string) => http.post<AgentResource>(at(id, '/archive')),
    estimate: (id: string, query: { version?: number } = {}) =>
      http.get<z.infer<typeof agentEstimate>>(at(id, '/estimate'), query),
  };
}

function pricesOf(http: Http) {
  const at = pathsOf('prices');
  return {
    set: (body: z.input<typeof priceSet>) => http.post<PriceResource>('/v1/prices', body),
    get: (id: string) => http.get<PriceResource>(at(id)),
    list: (query: Query = {}) => http.get<Paged<PriceResource>>('/v1/prices', query),
    effective: (query: { model: string; provider?: string }) =>
      http.get<z.infer<typeof effectivePrice>>('/v1/prices/effective', query),
    import: (body: z.input<typeof priceImport>) => http.post<z.infer<typeof priceImported>>('/v1/prices/import', body),
    delete: (id: string) => http.delete<Deleted>(at(id)),
  };
}

function keysOf(http: Http) {
  const at = pathsOf('keys');
  return {
    create: (body: z.input<typeof keyCreate>) => http.post<KeyCreatedResource>('/v1/keys', body),
    get: (id: string) => http.get<KeyResource>(at(id)),
    list: (query: Query = {}) => http.get<Paged<KeyResource>>('/v1/keys', query),
    update: (id: string, body: z.input<typeof keyUpdate>) => http.post<KeyResource>(at(id), body),
    revoke: (id: string) => http.post<KeyResource>(at(id, '/revoke')),
  };
}

function environmentsOf(http: Http) {
  const at = pathsOf('environments');
  return {
    create: (body: z.input<typeof environmentCreate>) => http.post<EnvironmentResource>('/v1/environments', body),
    get: (id: string) => http.get<EnvironmentResource>(at(id)),
    list: (query: Query = {}) => http.get<Paged<EnvironmentResource>>('/v1/environments', query),
    archive: (id: string) => http.post<EnvironmentResource>(at(id, '/archive')),
    delete: (id: string) => http.delete<Deleted>(at(id)),
  };
}

function sessionsOf(http: Http) {
  const at = pathsOf('sessions');
  return {
    create: (body: z.input<typeof sessionCreate>) => http.post<SessionResource>('/v1/sessions', body),
    get: (id: string) => http.get<SessionResource>(at(id)),
    list: (query: Query = {}) => http.get<Paged<SessionResource>>('/v1/sessions', query),
    update: (id: string, body: z.input<typeof sessionUpdate>) => http.post<SessionResource>(at(id), body),
    archive: (id: string) => http.post<SessionResource>(at(id, '/archive')),
    delete: (id: string) => http.delete<Deleted>(at(id)),
    trace: (id: string, query: Query = {}) => http.get<SessionTraceResource>(at(id, '/trace'), query),
    usage: (id: string) => http.get<z.infer<typeof usageByModel>>(at(id, '/usage')),
    send: (id: string, events: z.input<typeof eventsSend>['events']) =>
      http.post<{ data: SessionEvent[] }>(at(id, '/events'), { events }),
    events: (id: string, query: Query = {}) => http.get<Paged<SessionEvent>>(at(id, '/events'), query),
    follow: (id: string, options?: FollowOptions): AsyncGenerator<SessionEvent | LiveFrame> =>
      followEvents(http, id, options),
  };
}

function approvalsOf(http: Http) {
  const at = pathsOf('approvals');
  return {
    get: (id: string) => http.get<ApprovalResource>(at(id)),
    list: (query: Query = {}) => http.get<Paged<ApprovalResource>>('/v1/approvals', query),
    decide: (id: string, body: z.input<typeof approvalDecide>) => http.post<ApprovalResource>(at(id, '/decide'), body),
  };
}

function deploymentsOf(http: Http) {
  const at = pathsOf('deployments');
  return {
    create: (body: z.input<typeof deploymentCreate>) => http.post<DeploymentResource>('/v1/deployments', body),
    get: (id: string) => http.get<DeploymentResource>(at(id)),
    list: (query: Query = {}) => http.get<Paged<DeploymentResource>>('/v1/deployments', query),
    update: (id: string, body: z.input<typeof deploymentUpdate>) => http.post<DeploymentResource>(at(id), body),
    pause: (id: string) => http.post<DeploymentResource>(at(id, '/pause')),
    unpause: (id: string) => http.post<DeploymentResource>(at(id, '/unpause')),
    run: (id: string) => http.post<DeploymentRunResource>(at(id, '/run')),
    archive: (id: string) => http.post<DeploymentResource>(at(id, '/archive')),
  };
}
