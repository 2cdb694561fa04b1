import type { E2bSandboxRow } from '../../../db/queries/e2b-sandboxes.ts';
import type { E2bDeps } from '../sandboxes.ts';

/** The version of E2B's daemon whose wire this server speaks; SDKs offer what it has. */
export const ENVD_VERSION = '0.6.1';

const MIB = 1024 * 1024;

/** As create and connect answer it: with the tokens. */
export function renderHandle(deps: E2bDeps, row: E2bSandboxRow): object {
  return {
    sandboxID: row.id,
    templateID: row.template,
    clientID: 'longhaul',
    envdVersion: ENVD_VERSION,
    envdAccessToken: deps.tokens.access(row.id),
    trafficAccessToken: deps.tokens.traffic(row.id),
    domain: null,
  };
}

/** As lists show it. */
export function renderListed(row: E2bSandboxRow): object {
  return {
    sandboxID: row.id,
    templateID: row.template,
    clientID: 'longhaul',
    startedAt: row.createdAt.toISOString(),
    endAt: row.expiresAt.toISOString(),
    cpuCount: row.cpus,
    memoryMB: Math.floor(row.memoryBytes / MIB),
    diskSizeMB: Math.floor(row.diskBytes / MIB),
    metadata: row.metadata,
    state: row.state,
    envdVersion: ENVD_VERSION,
    volumeMounts: [],
  };
}

/** All there is to tell: of the network what holds. */
export function renderDetail(row: E2bSandboxRow, hasBroker: boolean): object {
  return {
    ...renderListed(row),
    domain: null,
    allowInternetAccess: hasBroker && row.egress.internet,
    network: row.network,
    lifecycle: { autoResume: row.autoResume, onTimeout: row.onTimeout },
  };
}
