import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { SandboxProvider, SandboxRef, SandboxSpec } from '../../activities/sandbox/port.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { withTransaction, type Pool } from '../../db/pool.ts';
import {
  getE2bSandbox,
  insertE2bSandbox,
  moveE2bSandbox,
  putE2bRef,
  setE2bTimeout,
  settleE2bSandbox,
  type E2bSandboxRow,
} from '../../db/queries/e2b-sandboxes.ts';
import type { ApiKey } from '../../db/queries/api-keys.ts';
import type { ProgramEgress } from '../../db/queries/egress-policies.ts';
import type { EgressClient } from '../../egress/client.ts';
import type { Logger } from '../../telemetry/logger.ts';
import type { E2bServerConfig } from './config.ts';
import { closeEgress, networkOfSpec, openEgress } from './egress.ts';
import { SANDBOX_GONE, WireError } from './http.ts';
import type { Tokens } from './tokens.ts';

/** What every part of the server works with. */
export interface E2bDeps {
  pool: Pool;
  provider: SandboxProvider;
  /** null: there is no broker. */
  egress: EgressClient | null;
  config: E2bServerConfig;
  tokens: Tokens;
  logger: Logger;
}

/** A sandbox that takes commands. */
export interface LiveSandbox {
  row: E2bSandboxRow;
  ref: SandboxRef;
}

export interface SandboxDraft {
  template: string;
  metadata: Record<string, string>;
  env: Record<string, string>;
  timeoutMs: number;
  keepMemory: boolean;
  onTimeout: 'kill' | 'pause';
  autoResume: boolean;
  network: Record<string, unknown>;
  egress: ProgramEgress;
  snapshot: SandboxSpec['snapshot'];
}

const PROVIDER_MS = 120_000;
const CREATED_MS = 60_000;
const ALPHABET = 'abcdefghijklmnopqrstuvwxyz234567';

/** Part of a host name, so lower case and digits only. */
export function newWireId(prefix: string): string {
  return prefix + [...randomBytes(19)].map((byte) => ALPHABET.charAt(byte % 32)).join('');
}

/** Makes a sandbox: its row first, so that whatever dies here, the sweep finds what is left. */
export async function createSandbox(deps: E2bDeps, principal: ApiKey, draft: SandboxDraft): Promise<E2bSandboxRow> {
  const id = newWireId('i');
  const { cpus, memoryBytes, diskBytes } = sizes();
  const { env: _env, snapshot, ...stored } = draft;
  const row = { id, teamId: principal.teamId, createdBy: principal.userId, cpus, memoryBytes, diskBytes, ...stored };
  const isMade = await withTransaction(deps.pool, (tx) => insertE2bSandbox(tx, row, deps.config.maxSandboxes));
  if (!isMade) throw new WireError(429, `this team has ${deps.config.maxSandboxes} sandboxes running already`);
  try {
    const spec = { ...specOf(deps, id, draft), ...(await networkOfSpec(deps, draft.env)) };
    const ref = await deps.provider.create(snapshot === undefined ? spec : { ...spec, snapshot }, id, bounded());
    if (await putE2bRef(deps.pool, id, ref)) await openEgress(deps, id, ref);
    else await deps.provider.destroy(ref, bounded());
  } catch (error) {
    await moveE2bSandbox(deps.pool, id, 'running', 'ended');
    throw error;
  }
  const made = await getE2bSandbox(deps.pool, id);
  if (made === undefined) throw new WireError(500, 'the sandbox was ended while it was made');
  return made;
}

function sizes(): Pick<SandboxSpec, 'cpus' | 'memoryBytes' | 'diskBytes' | 'pids'> {
  return {
    cpus: LIMITS.sandboxCpus,
    memoryBytes: LIMITS.sandboxMemoryBytes,
    diskBytes: LIMITS.sandboxDiskBytes,
    pids: LIMITS.sandboxPids,
  };
}

function specOf(deps: E2bDeps, id: string, draft: SandboxDraft): SandboxSpec {
  return {
    owner: deps.config.owner,
    labels: { e2b: id },
    env: draft.env,
    ...sizes(),
    ttlMs: draft.timeoutMs,
  };
}

/** A signal that ends a provider's call which hangs. */
export function bounded(): AbortSignal {
  return AbortSignal.timeout(PROVIDER_MS);
}

/** The team's sandbox; one of another team is not there. */
export async function requireSandbox(deps: E2bDeps, teamId: string, id: string): Promise<E2bSandboxRow> {
  const row = await getE2bSandbox(deps.pool, id);
  if (row === undefined || row.teamId !== teamId) throw new WireError(404, `sandbox ${id} not found`);
  return row;
}

/** The reference of a sandbox, also of one that another request is just making. */
export async function refOf(deps: E2bDeps, row: E2bSandboxRow): Promise<SandboxRef> {
  const deadlineMs = Date.now() + CREATED_MS;
  let now: E2bSandboxRow | undefined = row;
  while (now !== undefined && now.ref === null && Date.now() < deadlineMs) {
    await delay(50);
    now = await getE2bSandbox(deps.pool, row.id);
  }
  if (now === undefined) throw new WireError(404, `sandbox ${row.id} not found`);
  if (now.ref === null) throw new WireError(503, 'the sandbox is being made');
  return now.ref;
}

/** Wakes it when it is paused, and makes it live at least this long. True when it was paused. */
export async function connectSandbox(deps: E2bDeps, row: E2bSandboxRow, timeoutMs: number): Promise<boolean> {
  const ref = await refOf(deps, row);
  // First: the sweep would take one that wakes with its old time for one that is over.
  await setE2bTimeout(deps.pool, row.id, timeoutMs, { onlyLater: true });
  const wasPaused = row.state === 'paused' && (await resumeSandbox(deps, row.id, ref));
  await setE2bTimeout(deps.pool, row.id, timeoutMs, { onlyLater: !wasPaused });
  return wasPaused;
}

/** False: somebody else woke it. */
async function resumeSandbox(deps: E2bDeps, id: string, ref: SandboxRef): Promise<boolean> {
  if (!(await moveE2bSandbox(deps.pool, id, 'paused', 'running'))) return false;
  await deps.provider.resume(ref, bounded());
  await openEgress(deps, id, ref);
  await settleE2bSandbox(deps.pool, id, 'running');
  return true;
}

/** False when it is paused already. */
export async function pauseSandbox(deps: E2bDeps, row: E2bSandboxRow, keepMemory: boolean): Promise<boolean> {
  const ref = await refOf(deps, row);
  if (!(await moveE2bSandbox(deps.pool, row.id, 'running', 'paused', keepMemory))) return false;
  await followPause(deps, { ...row, ref, keepMemory });
  return true;
}

/** Has the provider do what the row says. */
export async function followPause(deps: E2bDeps, row: E2bSandboxRow): Promise<void> {
  if (row.ref === null) return;
  await closeEgress(deps, row.id);
  const { pause } = await deps.provider.capabilities();
  await deps.provider.pause(row.ref, bounded(), { keepMemory: row.keepMemory && pause === 'memory' });
  await settleE2bSandbox(deps.pool, row.id, 'paused');
}

/** False when it is gone already. */
export async function killSandbox(deps: E2bDeps, row: E2bSandboxRow): Promise<boolean> {
  const isMoved =
    (await moveE2bSandbox(deps.pool, row.id, 'running', 'ended')) ||
    (await moveE2bSandbox(deps.pool, row.id, 'paused', 'ended'));
  if (!isMoved) return false;
  await followEnd(deps, row);
  return true;
}

/** Of one that was being made its maker destroys the sandbox, else the sweep of strays. */
export async function followEnd(deps: E2bDeps, row: E2bSandboxRow): Promise<void> {
  await closeEgress(deps, row.id);
  if (row.ref !== null) await deps.provider.destroy(row.ref, bounded());
  await settleE2bSandbox(deps.pool, row.id, 'ended');
}

/**
 * The sandbox a command or a file is for. One whose time is over is gone although the sweep did not come by yet; one whose
 * processes died with their machine is woken; a paused one only when its program wanted that.
 */
export async function liveSandbox(deps: E2bDeps, id: string): Promise<LiveSandbox> {
  const row = await getE2bSandbox(deps.pool, id);
  if (row === undefined || (row.state === 'running' && row.expiresAt.getTime() < Date.now())) {
    throw new WireError(502, SANDBOX_GONE);
  }
  if (row.state === 'paused' && !row.autoResume) throw new WireError(502, SANDBOX_GONE);
  const ref = await refOf(deps, row);
  if (row.state === 'paused') {
    await connectSandbox(deps, row, LIMITS.e2bTimeoutDefaultMs);
    return { row: { ...row, ref, state: 'running' }, ref };
  }
  const info = await deps.provider.get(ref, bounded());
  if (info === null) throw new WireError(502, SANDBOX_GONE);
  const isAwake = info.state === 'running';
  if (!isAwake) await deps.provider.resume(ref, bounded());
  // Its processes died with their machine, or whoever made it died before the broker was told.
  if (!isAwake || row.egressPoint === null) await openEgress(deps, id, ref);
  return { row: { ...row, ref }, ref };
}
