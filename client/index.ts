import type { z } from 'zod';
import type { agentCache } from '../contracts/agent-cache.ts';
import type { AgentResource, agentCreate, agentUpdate } from '../contracts/agents.ts';
import type { ApprovalResource, approvalDecide } from '../contracts/approvals.ts';
import type {
  DeploymentResource,
  DeploymentRunResource,
  deploymentCreate,
  deploymentUpdate,
} from '../contracts/deployments.ts';
import type { EgressRequestResource, SecurityEventResource } from '../contracts/egress.ts';
import type { EnvironmentResource, environmentCreate, environmentUpdate } from '../contracts/environments.ts';
import type { SessionEvent, eventsSend } from '../contracts/events.ts';
import type { HarnessList } from '../contracts/harness-catalogue.ts';
import type { KeyCreatedResource, KeyResource, keyCreate, keyUpdate } from '../contracts/keys.ts';
import type { egressPolicy, egressPolicyParam } from '../contracts/networking.ts';
import type {
  effectivePrice,
  priceImport,
  priceImported,
  PriceResource,
  priceSet,
} from '../contracts/price-overrides.ts';
import type { agentEstimate, usagePercentiles, usageReport } from '../contracts/usage.ts';
import type {
  sessionPortClosed,
  sessionPortCreate,
  sessionPortCreated,
  sessionPortList,
} from '../contracts/session-ports.ts';
import type {
  fileResource,
  SessionResourceShown,
  sessionResourceAdd,
  sessionResourceUpdate,
} from '../contracts/session-resources.ts';
import type {
  SessionResource,
  sessionCreate,
  sessionThread,
  sessionUpdate,
  usageByModel,
} from '../contracts/sessions.ts';
import type { SessionTraceResource } from '../contracts/traces.ts';
import type { FollowOptions, LiveFrame } from './events.ts';
import { followEvents } from './events.ts';
import { filesOf } from './files.ts';
import { budgetsOf, modelPolicyOf, modelRoutesOf } from './gateway.ts';
import type { ClientOptions, Query } from './http.ts';
import { Http } from './http.ts';
import { type Deleted, type Paged, pathsOf } from './paths.ts';
import { skillsOf } from './skills.ts';
import { vaultsOf } from './vaults.ts';

export { ApiError } from './errors.ts';
export type { FollowOptions, LiveFrame } from './events.ts';
export type { ClientOptions } from './http.ts';
export type { Paged } from './paths.ts';

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
    vaults: vaultsOf(http),
    files: filesOf(http),
    egressPolicy: {
      get: () => http.get<z.infer<typeof egressPolicy>>('/v1/egress-policy'),
      update: (body: z.input<typeof egressPolicyParam>) =>
        http.post<z.infer<typeof egressPolicy>>('/v1/egress-policy', body),
    },
    sandboxes: {
      /** What one sandbox asked the network for, also one of an E2B program. */
      egress: (id: string, query: Query = {}) =>
        http.get<Paged<EgressRequestResource>>(`/v1/sandboxes/${encodeURIComponent(id)}/egress`, query),
    },
    skills: skillsOf(http),
    /** What loops can drive a model here, and what each can do. */
    harnesses: () => http.get<HarnessList>('/v1/harnesses'),
    securityEvents: (query: Query = {}) => http.get<Paged<SecurityEventResource>>('/v1/security-events', query),
    keys: keysOf(http),
    prices: pricesOf(http),
    budgets: budgetsOf(http),
    modelRoutes: modelRoutesOf(http),
    modelPolicy: modelPolicyOf(http),
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
    cache: (id: string, query: { version?: number } = {}) =>
      http.get<z.infer<typeof agentCache>>(at(id, '/cache'), query),
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
    update: (id: string, body: z.input<typeof environmentUpdate>) => http.post<EnvironmentResource>(at(id), body),
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
    /** What its sandbox asked the network for. */
    egress: (id: string, query: Query = {}) => http.get<Paged<EgressRequestResource>>(at(id, '/egress'), query),
    ports: portsOf(http),
    resources: resourcesOf(http),
    threads: (id: string, query: Query = {}) =>
      http.get<Paged<z.infer<typeof sessionThread>>>(at(id, '/threads'), query),
    thread: (id: string, threadId: string) =>
      http.get<z.infer<typeof sessionThread>>(at(id, `/threads/${encodeURIComponent(threadId)}`)),
    send: (id: string, events: z.input<typeof eventsSend>['events']) =>
      http.post<{ data: SessionEvent[] }>(at(id, '/events'), { events }),
    events: (id: string, query: Query = {}) => http.get<Paged<SessionEvent>>(at(id, '/events'), query),
    follow: (id: string, options?: FollowOptions): AsyncGenerator<SessionEvent | LiveFrame> =>
      followEvents(http, id, options),
  };
}

function portsOf(http: Http) {
  const at = pathsOf('sessions');
  return {
    open: (id: string, body: z.input<typeof sessionPortCreate>) =>
      http.post<z.infer<typeof sessionPortCreated>>(at(id, '/ports'), body),
    list: (id: string) => http.get<z.infer<typeof sessionPortList>>(at(id, '/ports')),
    close: (id: string, portId: string) =>
      http.delete<z.infer<typeof sessionPortClosed>>(at(id, `/ports/${encodeURIComponent(portId)}`)),
  };
}

function resourcesOf(http: Http) {
  const at = pathsOf('sessions');
  const one = (id: string, resourceId: string): string => at(id, `/resources/${encodeURIComponent(resourceId)}`);
  return {
    get: (id: string, resourceId: string) => http.get<SessionResourceShown>(one(id, resourceId)),
    list: (id: string) => http.get<Paged<SessionResourceShown>>(at(id, '/resources')),
    update: (id: string, resourceId: string, body: z.input<typeof sessionResourceUpdate>) =>
      http.post<SessionResourceShown>(one(id, resourceId), body),
    /** Mounts a file before the next tool call. */
    add: (id: string, body: z.input<typeof sessionResourceAdd>) =>
      http.post<z.infer<typeof fileResource>>(at(id, '/resources'), body),
    delete: (id: string, resourceId: string) => http.delete<Deleted>(one(id, resourceId)),
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
