import { existsSync } from 'node:fs';
import { proxyVariables } from '../../activities/sandbox/network.ts';
import type { SandboxRef, SandboxSpec } from '../../activities/sandbox/port.ts';
import { canonicalHost, canonicalHostPattern, isAddress, isCidr } from '../../contracts/hosts.ts';
import { setE2bEgressPoint } from '../../db/queries/e2b-sandboxes.ts';
import type { ProgramEgress } from '../../db/queries/egress-policies.ts';
import { WireError } from './http.ts';
import type { E2bDeps } from './sandboxes.ts';

const CALL_MS = 20_000;
const bounded = (): AbortSignal => AbortSignal.timeout(CALL_MS);

/** Everything, as the SDKs write it. */
const ALL = new Set(['0.0.0.0/0', '::/0']);

/** What a program says of the network of its sandbox. */
interface AskedNetwork {
  /** Undefined or null: nothing. */
  internet: boolean | null | undefined;
  allowOut?: string[] | null | undefined;
  denyOut?: string[] | null | undefined;
}

/**
 * What holds of it. As at E2B what is allowed goes before what is denied; other than there a program that says nothing has no
 * network, unless the server was started so.
 */
export function egressOf(deps: Pick<E2bDeps, 'config'>, asked: AskedNetwork): ProgramEgress {
  const allow = asked.allowOut ?? [];
  const deny = asked.denyOut ?? [];
  const isOpen = (asked.internet ?? deps.config.allowInternet) && !deny.some((entry) => ALL.has(entry));
  return {
    internet: isOpen || allow.some((entry) => ALL.has(entry)),
    allow: allow.filter((entry) => !ALL.has(entry)).map((entry) => checked('network.allowOut', entry, true)),
    deny: deny.filter((entry) => !ALL.has(entry)).map((entry) => checked('network.denyOut', entry, false)),
  };
}

function checked(field: string, entry: string, mayBeName: boolean): string {
  if (isCidr(entry)) return entry;
  const host = mayBeName ? canonicalHostPattern(entry) : canonicalHost(entry);
  if (host !== undefined && (mayBeName || isAddress(host))) return host;
  const what = mayBeName ? 'a host, *.host, an address or a network' : 'an address or a network';
  throw new WireError(400, `${field}: "${entry.slice(0, 100)}" is not ${what}`);
}

/** Whether sandboxes of this server can come to a broker. */
async function hasWayOut(deps: E2bDeps): Promise<boolean> {
  return deps.egress !== null && (await deps.provider.capabilities()).egress === 'listener';
}

/** Network, certificates and variables of a new sandbox; without a broker it has no network. */
export async function networkOfSpec(
  deps: E2bDeps,
  env: Record<string, string>,
): Promise<Pick<SandboxSpec, 'network' | 'env' | 'trustBundleFile'>> {
  if (!(await hasWayOut(deps))) return { network: { type: 'none' }, env };
  const { trustBundleFile } = deps.config;
  if (!existsSync(trustBundleFile)) throw new WireError(503, 'the egress broker has not made its certificates yet');
  return { network: { type: 'broker', proxy: null }, env: { ...proxyVariables(), ...env }, trustBundleFile };
}

/**
 * Lets a running sandbox out, again after each wake-up. Its place is written down first: a broker that is away now listens
 * when it is back, and until then the sandbox has no network.
 */
export async function openEgress(deps: E2bDeps, id: string, ref: SandboxRef): Promise<void> {
  if (deps.egress === null || !(await hasWayOut(deps))) return;
  const point = await deps.provider.egressPoint(ref, bounded());
  if (point === null) return;
  await setE2bEgressPoint(deps.pool, id, point);
  try {
    await deps.egress.attach(id, null, point, bounded());
  } catch (error) {
    deps.logger.warn({ err: error, sandboxId: id }, 'the egress broker does not let a sandbox out yet');
  }
}

/** What the broker cannot be told now it finds by itself: it looks for sandboxes that run no more. */
export async function closeEgress(deps: E2bDeps, id: string): Promise<void> {
  if (deps.egress === null) return;
  await setE2bEgressPoint(deps.pool, id, null);
  try {
    await deps.egress.detach(id, bounded());
  } catch (error) {
    deps.logger.warn({ err: error, sandboxId: id }, 'the egress broker could not be told of an end');
  }
}

/** The rules of a running sandbox are others. */
export async function refreshEgress(deps: E2bDeps, id: string): Promise<void> {
  if (deps.egress === null) return;
  try {
    await deps.egress.refreshSandbox(id, bounded());
  } catch (error) {
    throw new WireError(503, 'the rules are stored, but the egress broker could not be told of them', { cause: error });
  }
}
