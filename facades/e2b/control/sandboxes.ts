import { findE2bSnapshot } from '../../../db/queries/e2b-snapshots.ts';
import {
  listE2bSandboxes,
  setE2bNetwork,
  setE2bTimeout,
  type E2bSandboxRow,
} from '../../../db/queries/e2b-sandboxes.ts';
import { egressOf, refreshEgress } from '../egress.ts';
import { measure } from '../envd/metrics.ts';
import { parseWith, readJson, WireError } from '../http.ts';
import { LIMITS } from '../../../contracts/limits.ts';
import {
  bounded,
  connectSandbox,
  createSandbox,
  killSandbox,
  liveSandbox,
  pauseSandbox,
  refOf,
  requireSandbox,
  type SandboxDraft,
} from '../sandboxes.ts';
import { renderDetail, renderHandle, renderListed } from './render.ts';
import type { ControlAnswer, ControlRequest } from './routes.ts';
import {
  connectBody,
  createBody,
  listQuery,
  networkBody,
  pauseBody,
  refreshBody,
  resumeBody,
  timeoutBody,
} from './schemas.ts';

const NEXT_TOKEN = 'x-next-token';

function row({ deps, principal, id }: ControlRequest): Promise<E2bSandboxRow> {
  return requireSandbox(deps, principal.teamId, id);
}

function millis(seconds: number | null | undefined): number {
  return seconds === null || seconds === undefined ? LIMITS.e2bTimeoutDefaultMs : seconds * 1_000;
}

/** SDKs of before 2.51 send `allow_internet_access: true` unless their program says otherwise: it says nothing then. */
export function createOlder(request: ControlRequest): Promise<ControlAnswer> {
  return create(request, true);
}

export async function create(request: ControlRequest, isOlder = false): Promise<ControlAnswer> {
  const { deps, principal, req } = request;
  const body = await readJson(req, createBody);
  const made = await createSandbox(deps, principal, {
    template: body.templateID,
    metadata: body.metadata ?? {},
    env: body.envVars ?? {},
    timeoutMs: millis(body.timeout),
    keepMemory: body.autoPauseMemory ?? true,
    onTimeout: body.autoPause === true ? 'pause' : 'kill',
    autoResume: body.autoResume?.enabled ?? false,
    network: body.network ?? {},
    egress: egressOf(deps, {
      internet: isOlder && body.allow_internet_access === true ? null : body.allow_internet_access,
      ...body.network,
    }),
    snapshot: await startOf(request, body.templateID),
  });
  return { status: 201, body: renderHandle(deps, made) };
}

/** A snapshot of this team, or the one sandbox there is under all names of templates. */
async function startOf({ deps, principal }: ControlRequest, template: string): Promise<SandboxDraft['snapshot']> {
  if (deps.config.templates.has(template)) return undefined;
  const snapshot = await findE2bSnapshot(deps.pool, principal.teamId, template);
  if (snapshot === undefined || snapshot.ref === null) {
    throw new WireError(
      404,
      `template ${template} not found: name it in LONGHAUL_E2B_TEMPLATES to have it taken for base`,
    );
  }
  return snapshot.ref;
}

export async function get(request: ControlRequest): Promise<ControlAnswer> {
  return { status: 200, body: renderDetail(await row(request), request.deps.egress !== null) };
}

export async function list({ deps, principal, query }: ControlRequest): Promise<ControlAnswer> {
  const asked = parseWith(listQuery, query);
  const states = asked.state ?? ['running', 'paused'];
  const { metadata, template, startedAfter } = asked;
  const page = await listE2bSandboxes(
    deps.pool,
    { teamId: principal.teamId, states, metadata, template, startedAfter },
    { limit: asked.limit ?? LIMITS.e2bPageSize, cursor: asked.nextToken, order: asked.order },
  );
  const headers: Record<string, string> = page.nextPage === null ? {} : { [NEXT_TOKEN]: page.nextPage };
  return { status: 200, body: page.data.map(renderListed), headers };
}

/** The first generation of the list: running ones, one page. */
export function listRunning(request: ControlRequest): Promise<ControlAnswer> {
  return list({ ...request, query: { ...request.query, state: 'running' } });
}

export async function kill(request: ControlRequest): Promise<ControlAnswer> {
  const isEnded = await killSandbox(request.deps, await row(request));
  if (!isEnded) throw new WireError(404, `sandbox ${request.id} not found`);
  return { status: 204 };
}

export async function connect(request: ControlRequest): Promise<ControlAnswer> {
  const body = await readJson(request.req, connectBody);
  const sandbox = await row(request);
  const wasPaused = await connectSandbox(request.deps, sandbox, millis(body.timeout));
  return { status: wasPaused ? 201 : 200, body: renderHandle(request.deps, sandbox) };
}

export async function resume(request: ControlRequest): Promise<ControlAnswer> {
  const body = await readJson(request.req, resumeBody);
  const sandbox = await row(request);
  if (!(await connectSandbox(request.deps, sandbox, millis(body.timeout)))) {
    throw new WireError(409, `sandbox ${sandbox.id} is running already`);
  }
  return { status: 201, body: renderHandle(request.deps, sandbox) };
}

export async function setTimeout(request: ControlRequest): Promise<ControlAnswer> {
  const body = await readJson(request.req, timeoutBody);
  return extend(request, body.timeout * 1_000, false);
}

export async function refresh(request: ControlRequest): Promise<ControlAnswer> {
  const body = await readJson(request.req, refreshBody);
  return extend(request, millis(body.duration), true);
}

async function extend(request: ControlRequest, timeoutMs: number, onlyLater: boolean): Promise<ControlAnswer> {
  const sandbox = await row(request);
  await setE2bTimeout(request.deps.pool, sandbox.id, timeoutMs, { onlyLater });
  // The row decides; the provider's own lease is for its reaper.
  await request.deps.provider.extend(await refOf(request.deps, sandbox), timeoutMs, bounded());
  return { status: 204 };
}

export async function pause(request: ControlRequest): Promise<ControlAnswer> {
  const body = await readJson(request.req, pauseBody);
  if (!(await pauseSandbox(request.deps, await row(request), body.memory ?? true))) {
    throw new WireError(409, `sandbox ${request.id} is paused already`);
  }
  return { status: 204 };
}

/** Replaces the whole: what is not named is cleared. */
export async function setNetwork(request: ControlRequest): Promise<ControlAnswer> {
  const { allow_internet_access: internet, ...network } = await readJson(request.req, networkBody);
  const sandbox = await row(request);
  const egress = egressOf(request.deps, { internet, ...network });
  await setE2bNetwork(request.deps.pool, sandbox.id, network, egress);
  if (sandbox.state === 'running') await refreshEgress(request.deps, sandbox.id);
  return { status: 204 };
}

export async function metrics(request: ControlRequest): Promise<ControlAnswer> {
  const sandbox = await row(request);
  if (sandbox.state !== 'running') return { status: 200, body: [] };
  const now = await measure(request.deps, await liveSandbox(request.deps, sandbox.id));
  const { ts, cpu_count, cpu_used_pct, mem_used, mem_total, disk_used, disk_total } = now;
  const sample = {
    timestamp: new Date(ts * 1_000).toISOString(),
    timestampUnix: ts,
    cpuCount: cpu_count,
    cpuUsedPct: cpu_used_pct,
    memUsed: mem_used,
    memTotal: mem_total,
    memCache: 0,
    diskUsed: disk_used,
    diskTotal: disk_total,
  };
  return { status: 200, body: [sample] };
}
