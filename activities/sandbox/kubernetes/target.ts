import { LonghaulError } from '../../../contracts/error-codes.ts';
import type { SandboxInfo, SandboxRef } from '../port.ts';
import type { Cluster } from './api.ts';
import type { AgentObject, Kind } from './objects.ts';
import { ANNOTATION, CLAIMS, conditionOf, podNameOf, requireName, SANDBOXES } from './objects.ts';

/** What a reference stands for: the object that was made, and the sandbox behind it, which a claim only names. */
export interface Target {
  kind: Kind;
  made: AgentObject;
  /** Null while a claim waits for one. */
  sandbox: AgentObject | null;
}

export function kindOf(ref: SandboxRef): Kind {
  return ref.meta['kind'] === 'claim' ? 'claim' : 'sandbox';
}

export function resourceOf(kind: Kind): typeof SANDBOXES | typeof CLAIMS {
  return kind === 'claim' ? CLAIMS : SANDBOXES;
}

/** As it is now; null when it is gone. */
export async function findTarget(cluster: Cluster, ref: SandboxRef, signal: AbortSignal): Promise<Target | null> {
  const kind = kindOf(ref);
  const made = await cluster.find(resourceOf(kind), requireName(ref.id), signal);
  return made === null ? null : await behind(cluster, kind, made, signal);
}

export async function behind(cluster: Cluster, kind: Kind, made: AgentObject, signal: AbortSignal): Promise<Target> {
  if (kind === 'sandbox') return { kind, made, sandbox: made };
  const name = made.status?.sandbox?.name;
  const sandbox = name === undefined || name === '' ? null : await cluster.find(SANDBOXES, name, signal);
  return { kind, made, sandbox };
}

export async function requireTarget(cluster: Cluster, ref: SandboxRef, signal: AbortSignal): Promise<Target> {
  const found = await findTarget(cluster, ref, signal);
  if (found === null) throw new LonghaulError('sandbox_not_found', `sandbox ${ref.id} does not exist`);
  return found;
}

/** The controller's Ready condition is what counts, not the phase of a pod. */
export function isReady(sandbox: AgentObject | null): boolean {
  return sandbox !== null && !isSuspended(sandbox) && conditionOf(sandbox, 'Ready')?.status === 'True';
}

export function isSuspended(sandbox: AgentObject | null): boolean {
  return sandbox?.spec.operatingMode === 'Suspended';
}

/** Its pod ended by itself, and the controller makes no other. */
export function isFinished(sandbox: AgentObject | null): boolean {
  return sandbox !== null && conditionOf(sandbox, 'Finished')?.status === 'True';
}

export function podOf(target: Target): string | null {
  return target.sandbox === null ? null : podNameOf(target.sandbox);
}

/** The environment of all its commands. */
export function envOf(target: Target): Record<string, string> {
  return recordIn(target.made, ANNOTATION.env);
}

function recordIn(object: AgentObject, annotation: string): Record<string, string> {
  try {
    return JSON.parse(object.metadata.annotations?.[annotation] ?? '{}') as Record<string, string>;
  } catch {
    return {};
  }
}

export function infoOf(provider: string, target: Target): SandboxInfo {
  const { kind, made, sandbox } = target;
  const shutdown = made.spec.shutdownTime ?? made.spec.lifecycle?.shutdownTime;
  const ends = [Number(made.metadata.annotations?.[ANNOTATION.expires] ?? Number.NaN), Date.parse(shutdown ?? '')];
  const createdAtMs = Date.parse(made.metadata.creationTimestamp ?? '') || 0;
  const known = ends.filter((each) => Number.isFinite(each));
  return {
    ref: refOf(provider, kind, made.metadata.name),
    state: isReady(sandbox) ? 'running' : isSuspended(sandbox) ? 'paused' : 'stopped',
    owner: made.metadata.annotations?.[ANNOTATION.owner] ?? '',
    labels: recordIn(made, ANNOTATION.labels),
    createdAtMs,
    expiresAtMs: known.length === 0 ? createdAtMs : Math.min(...known),
  };
}

export function refOf(provider: string, kind: Kind, name: string): SandboxRef {
  return { provider, id: name, meta: { kind } };
}

/** Changes for `Cluster.update`: null when there is nothing to do. */
export function suspending(now: AgentObject): object | null {
  return isSuspended(now) ? null : { spec: { operatingMode: 'Suspended' } };
}

export function waking(now: AgentObject): object | null {
  return isSuspended(now) ? { spec: { operatingMode: 'Running' } } : null;
}

/** Its pod has ended, or somebody woke or removed it meanwhile. */
export function isDown(now: AgentObject | null): boolean {
  return now === null || !isSuspended(now) || conditionOf(now, 'Suspended')?.status === 'True';
}
