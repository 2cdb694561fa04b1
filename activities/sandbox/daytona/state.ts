import type { Sandbox } from '@daytonaio/sdk';
import type { SandboxInfo } from '../port.ts';
import { callersLabels, LABEL } from './spec.ts';

/** What the vendor's two dozen states mean for whoever wants to run a command. */
export type Phase = 'running' | 'waking' | 'falling_asleep' | 'asleep' | 'broken' | 'gone';

export function phaseOf(state: Sandbox['state'] | undefined): Phase {
  switch (state) {
    case 'started':
    case 'resizing':
    case 'snapshotting':
    case 'forking':
      return 'running';
    case 'creating':
    case 'restoring':
    case 'starting':
    case 'resuming':
    case 'pending_build':
    case 'building_snapshot':
    case 'pulling_snapshot':
      return 'waking';
    case 'stopping':
    case 'pausing':
    case 'archiving':
      return 'falling_asleep';
    case 'stopped':
    case 'paused':
    case 'archived':
      return 'asleep';
    case 'destroying':
    case 'destroyed':
      return 'gone';
    case 'error':
    case 'build_failed':
      return 'broken';
    // A state this release of the SDK does not know yet.
    default:
      return 'waking';
  }
}

function portState(phase: Phase): SandboxInfo['state'] {
  switch (phase) {
    case 'running':
      return 'running';
    case 'asleep':
    case 'falling_asleep':
      return 'paused';
    case 'waking':
    case 'broken':
    case 'gone':
      return 'stopped';
    default:
      return phase satisfies never;
  }
}

/** A sandbox as the port shows it; null when it is gone. */
export function infoOf(provider: string, sandbox: Sandbox): SandboxInfo | null {
  const phase = phaseOf(sandbox.state);
  if (phase === 'gone') return null;
  const createdAtMs = Date.parse(sandbox.createdAt ?? '') || 0;
  const leaseMs = Number(sandbox.labels[LABEL.expires] ?? Number.NaN);
  const destroyedMs = Date.parse(sandbox.autoDestroyAt ?? '');
  const ends = [leaseMs, destroyedMs].filter((each) => Number.isFinite(each));
  return {
    ref: { provider, id: sandbox.name, meta: {} },
    state: portState(phase),
    owner: sandbox.labels[LABEL.owner] ?? '',
    labels: callersLabels(sandbox.labels),
    createdAtMs,
    expiresAtMs: ends.length === 0 ? createdAtMs : Math.min(...ends),
  };
}
