import type { SandboxCapabilities, SandboxNetwork } from '../port.ts';
import { unsupported } from '../unsupported.ts';
import type { GroupSupport } from './groups.ts';

const NAME = 'local';

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

/** Refused rather than left out: who asks for a network and gets none would not know why. */
export function requireNetwork(network: SandboxNetwork): void {
  switch (network.type) {
    case 'none':
      return;
    case 'broker':
      if (network.proxy === null) return;
      throw unsupported(NAME, 'reach a broker at an address: it listens inside');
    case 'native':
      throw unsupported(NAME, 'filter the network by themselves');
    case 'open':
      throw unsupported(NAME, 'have an open network');
  }
}
