import { readdirSync, readFileSync } from 'node:fs';
import { unsupported } from '../unsupported.ts';
import type { EgressPoint, LimitState, SandboxCapabilities, SandboxNetwork } from '../port.ts';
import type { ContainerOptions } from './container.ts';

/** What the engine tells about itself. */
export interface EngineInfo {
  ServerVersion: string;
  Driver: string;
  MemoryLimit: boolean;
  PidsLimit: boolean;
  CpuCfsQuota: boolean;
  SecurityOptions: string[] | null;
}

/** Whether this process may go into the network of the engine's containers: the same machine, process ids and root. */
export function mayEnterNetworks(engineIsLocal: boolean): boolean {
  if (!engineIsLocal || process.platform !== 'linux' || process.geteuid?.() !== 0) return false;
  return readdirSync('/proc').some((pid) => /^\d+$/.test(pid) && read(`/proc/${pid}/comm`).trim() === 'dockerd');
}

/** The container's process 1 as this machine knows it, or null: another machine's numbers mean something else here. */
export function egressPointOf(container: { id: string; pid: number }): EgressPoint | null {
  if (container.pid === 0 || !read(`/proc/${container.pid}/cgroup`).includes(container.id)) return null;
  const startTime = read(`/proc/${container.pid}/stat`)
    .replace(/^.*\) /s, '')
    .split(' ')[19];
  return startTime === undefined ? null : { type: 'namespace', pid: container.pid, startTime };
}

function kept(isKept: boolean): LimitState {
  return isKept ? 'enforced' : 'unavailable';
}

function read(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

/** Sandboxes have no network of the engine's: the only way out is the broker's listener. */
export function requireNetwork(network: SandboxNetwork, hasListener: boolean): void {
  if (network.type === 'none' || (network.type === 'broker' && network.proxy === null && hasListener)) return;
  const what = { broker: 'reach a broker from here', native: 'filter by host', open: 'have an open network' };
  throw unsupported('docker', what[network.type]);
}

export function capabilitiesOf(info: EngineInfo, options: ContainerOptions, hasListener: boolean): SandboxCapabilities {
  const security = info.SecurityOptions ?? [];
  const has = (name: string): boolean => security.some((each) => each.startsWith(`name=${name}`));
  return {
    isolation: 'container',
    network: 'none',
    pause: 'memory',
    snapshot: true,
    egress: hasListener ? 'listener' : 'none',
    secrets: 'none',
    ports: hasListener,
    limits: {
      memory: kept(info.MemoryLimit),
      pids: kept(info.PidsLimit),
      cpu: kept(info.CpuCfsQuota),
      disk: options.storageQuota ? 'enforced' : 'watched',
      output: 'enforced',
    },
    notes: [
      `engine ${info.ServerVersion}, storage ${info.Driver}`,
      `user ${options.user}, no capabilities, no new privileges`,
      has('userns') ? 'user namespace of the engine' : has('rootless') ? 'rootless engine' : 'no user namespace',
      has('seccomp')
        ? `seccomp profile ${options.seccompFile === undefined ? 'of Longhaul' : 'of the operator'}`
        : 'this engine has no seccomp and makes no sandboxes',
      ...(options.runtime === undefined ? [] : [`runtime ${options.runtime}`]),
      hasListener
        ? 'the broker listens in the network of each container'
        : 'no network at all: the worker is not root on the engine’s machine',
    ],
  };
}
