import { createHash } from 'node:crypto';
import type { CloudEnvironment } from '../../contracts/definitions.ts';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { withoutRepositoryRules } from '../../contracts/repository-rules.ts';
import type { SessionCredential } from '../../contracts/credentials.ts';
import type { SessionForTurn } from '../../db/queries/session-status.ts';
import type { ActivityDeps } from '../deps.ts';
import { usesPackages } from './packages.ts';
import { proxyVariables } from './network.ts';
import type { SandboxNetwork, SandboxSpec, SnapshotRef } from './port.ts';

const MIB = 1024 * 1024;
/** Where packages go when nobody may write to /usr. */
const USER_BIN = '/workspace/.local/bin';
const SYSTEM_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** The environment whose sandboxes we make. */
export function cloudEnvironment(session: Pick<SessionForTurn, 'environment'>): CloudEnvironment {
  if (session.environment.type === 'cloud') return session.environment;
  throw new LonghaulError('sandbox_invalid', 'a self_hosted environment runs no tools here');
}

/** True when a new sandbox needs more than a moment: that is work of its own, with its own limits. */
export function needsPreparation(environment: CloudEnvironment): boolean {
  const { provider, setup_script: script, repositories } = environment;
  return provider !== 'local' || script !== null || repositories.length > 0 || usesPackages(environment);
}

/** True when there is something to save for the next sandbox of the same environment. */
export function hasSetup(environment: CloudEnvironment): boolean {
  return environment.setup_script !== null || usesPackages(environment);
}

/**
 * Names what packages and set-up script made. Another team, image, script, network or set of credentials makes something
 * else: what one session could fetch must not reach a session that may not fetch it.
 */
export function setupHash(session: SessionForTurn, credentials: readonly SessionCredential[]): string {
  const environment = cloudEnvironment(session);
  const { provider, image, packages, setup_script, env, resources } = environment;
  const networking = withoutRepositoryRules(environment);
  const credentialIds = credentials.map(({ credentialId }) => credentialId).toSorted();
  const made = {
    team: session.teamId,
    provider,
    image,
    packages,
    setup_script,
    env,
    networking,
    disk: resources.disk_mb,
  };
  return createHash('sha256')
    .update(JSON.stringify([made, credentialIds]))
    .digest('hex');
}

/** What every command finds in its environment. Placeholders are of this session alone; nothing here is a secret. */
export function commandEnvironment(
  environment: CloudEnvironment,
  credentials: readonly SessionCredential[],
  proxyUrl: string | null,
): Record<string, string> {
  const placeholders: Record<string, string> = {};
  // Of two for one variable the first counts, as in the vaults.
  for (const { env, placeholder } of credentials) if (env !== null) placeholders[env] ??= placeholder;
  const isPerUser = environment.provider === 'local' && usesPackages(environment);
  return {
    ...(isPerUser ? { PATH: `${USER_BIN}:${SYSTEM_PATH}` } : {}),
    ...environment.env,
    ...placeholders,
    ...(proxyUrl === null ? {} : proxyVariables(proxyUrl)),
  };
}

/** `sandboxId` is ours: the reaper finds by it what a crash kept from being recorded. */
export function specOf(
  deps: ActivityDeps,
  session: SessionForTurn,
  made: {
    sandboxId: string;
    network: SandboxNetwork;
    snapshot: SnapshotRef | undefined;
    trustBundleFile: string | undefined;
  },
): SandboxSpec {
  const { resources, image, env } = cloudEnvironment(session);
  return {
    owner: deps.sandboxOwner,
    labels: { session: session.id, team: session.teamId, sandbox: made.sandboxId },
    env,
    memoryBytes: resources.memory_mb * MIB,
    diskBytes: resources.disk_mb * MIB,
    pids: resources.processes,
    cpus: resources.cpus,
    ttlMs: LIMITS.sandboxLeaseMs,
    network: made.network,
    ...(image === null ? {} : { image }),
    ...(made.snapshot === undefined ? {} : { snapshot: made.snapshot }),
    ...(made.trustBundleFile === undefined ? {} : { trustBundleFile: made.trustBundleFile }),
  };
}
