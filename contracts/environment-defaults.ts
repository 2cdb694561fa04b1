/** Zod-free: what an environment is when it does not say otherwise. */
import type { CloudEnvironment, EnvironmentConfig } from './definitions.ts';
import { LIMITS } from './limits.ts';

const MIB = 1024 * 1024;

/** Default deny: a sandbox reaches nothing unless its environment names it. */
export function defaultEnvironment(): CloudEnvironment {
  return {
    type: 'cloud',
    networking: { type: 'limited', allowed_hosts: [], allow_mcp_servers: false, allow_package_managers: false },
    packages: { type: 'packages', apt: [], cargo: [], gem: [], go: [], npm: [], pip: [] },
    provider: 'local',
    image: null,
    resources: {
      memory_mb: LIMITS.sandboxMemoryBytes / MIB,
      cpus: LIMITS.sandboxCpus,
      disk_mb: LIMITS.sandboxDiskBytes / MIB,
      processes: LIMITS.sandboxPids,
    },
    setup_script: null,
    repositories: [],
    env: {},
    idle: {
      pause_after_seconds: LIMITS.sandboxIdlePauseMs / 1_000,
      snapshot_after_seconds: null,
      destroy_after_seconds: null,
      keep_memory: false,
    },
  };
}

/** A stored config with the fields that were not there yet when it was written. */
export function completeEnvironment(stored: EnvironmentConfig): EnvironmentConfig {
  return stored.type === 'self_hosted' ? stored : { ...defaultEnvironment(), ...stored };
}
