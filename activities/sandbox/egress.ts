import { existsSync } from 'node:fs';
import { LonghaulError } from '../../contracts/error-codes.ts';
import type { SandboxRow } from '../../db/queries/sandboxes.ts';
import { recordEgress } from '../../db/queries/sandboxes.ts';
import type { EgressAccess } from '../../egress/client.ts';
import type { ActivityDeps } from '../deps.ts';
import { networkOf } from './network.ts';
import type { CloudEnvironment } from '../../contracts/definitions.ts';
import type { SandboxCapabilities, SandboxNetwork, SandboxProvider, SandboxRef } from './port.ts';

/**
 * What a new sandbox may reach. One that comes to the broker's public listener is made known to the broker first: its
 * provider is told that address. The row says that the broker may know of it before the broker does.
 */
export async function settleNetwork(
  deps: ActivityDeps,
  row: SandboxRow,
  capabilities: SandboxCapabilities,
  environment: CloudEnvironment,
  signal: AbortSignal,
): Promise<SandboxNetwork> {
  if (deps.egress === null || capabilities.egress === 'none') return networkOf(capabilities, environment, null);
  if (capabilities.egress === 'listener') return networkOf(capabilities, environment, { proxy: null });
  await recordEgress(deps.pool, row.id, { point: null, open: true });
  const access = await attach(deps, row, null, signal);
  const proxy = access?.type === 'proxy' ? { host: access.host, port: access.port } : null;
  return networkOf(capabilities, environment, { proxy });
}

/**
 * Lets a running sandbox out: its place is stored, so that a broker that starts anew finds it, and then the broker told. To
 * be repeated after each wake-up, which may have made another network namespace. Returns the proxy programs are to use.
 */
export async function openEgress(
  deps: ActivityDeps,
  row: SandboxRow,
  sandbox: { provider: SandboxProvider; ref: SandboxRef; network: SandboxNetwork },
  signal: AbortSignal,
): Promise<string | null> {
  const { provider, ref, network } = sandbox;
  if (deps.egress === null || network.type !== 'broker') return null;
  const point = network.proxy === null ? await provider.egressPoint(ref, signal) : null;
  if (network.proxy === null && point === null) return null;
  await recordEgress(deps.pool, row.id, { point, open: true });
  const access = await attach(deps, row, point, signal);
  if (access === null) return null;
  if (access.type === 'listener') return `http://${access.address}`;
  const { isTls, host, port, username, password } = access;
  return `${isTls ? 'https' : 'http'}://${encodeURIComponent(username)}:${encodeURIComponent(password)}@${host}:${port}`;
}

/** null where the broker cannot let it out: it has no network then, which is no reason not to work. */
async function attach(
  deps: ActivityDeps,
  row: SandboxRow,
  point: { type: 'namespace'; pid: number; startTime: string } | null,
  signal: AbortSignal,
): Promise<EgressAccess | null> {
  try {
    return (await deps.egress?.attach(row.id, row.sessionId, point, signal)) ?? null;
  } catch (error) {
    if (!(error instanceof LonghaulError) || error.retryable) throw error;
    if (point !== null) deps.logger.warn({ sandboxId: row.id, err: error }, 'the egress broker does not let it out');
    return null;
  }
}

/** The broker stops listening for a sandbox that is gone or sleeps; what cannot be told now the reaper tells. */
export async function closeEgress(deps: ActivityDeps, sandboxId: string, signal: AbortSignal): Promise<void> {
  if (deps.egress === null) return;
  await deps.egress.detach(sandboxId, signal);
  await recordEgress(deps.pool, sandboxId, { point: null, open: false });
}

/** The trust bundle, once the broker has made it; a sandbox made before would trust nothing the broker says. */
export function trustBundle(deps: ActivityDeps, network: SandboxNetwork): string | undefined {
  if (network.type !== 'broker') return undefined;
  if (existsSync(deps.trustBundleFile)) return deps.trustBundleFile;
  throw new LonghaulError('sandbox_unavailable', 'the egress broker has not made its certificates yet');
}
