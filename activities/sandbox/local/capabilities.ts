import type { SandboxCapabilities } from '../port.ts';
import type { GroupSupport } from './groups.ts';

/** What sandboxes of this machine can do, from what its control groups let us set. */
export function capabilitiesOf({ version, memory, cpu, freezer }: GroupSupport): SandboxCapabilities {
  return {
    isolation: 'namespace',
    network: 'none',
    pause: freezer ? 'memory' : 'filesystem',
    snapshot: true,
    egress: 'listener',
    secrets: 'none',
    ports: true,
    limits: {
      memory: memory ? 'enforced' : 'watched',
      pids: 'enforced',
      cpu: 'enforced',
      disk: 'watched',
      output: 'enforced',
    },
    notes: [
      process.getuid?.() === 0 ? 'one host uid per sandbox' : 'user namespace of the worker’s own uid',
      version === null ? 'no control groups' : `control groups v${version}`,
      memory ? 'memory by control group' : 'memory by counting it, and per process by resource limit',
      cpu ? 'CPU time by control group' : 'CPU by pinning to processors',
      freezer ? 'pauses may keep memory' : 'pauses keep files only',
    ],
  };
}
