import { createHash } from 'node:crypto';
import { isIP } from 'node:net';
import type { CreateSandboxFromImageParams, CreateSandboxFromSnapshotParams } from '@daytonaio/sdk';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import type { SandboxNetwork, SandboxSpec } from '../port.ts';

const GIB = 1024 ** 3;

/** Labels of ours; the caller's stand beside them under their own names. */
export const LABEL = { owner: 'longhaul-owner', expires: 'longhaul-expires-ms', key: 'longhaul-key' } as const;
/** Added by the SDK itself. */
const FOREIGN_LABEL = 'code-toolbox-language';

function digest(text: string, characters: number): string {
  return createHash('sha256').update(text).digest('hex').slice(0, characters);
}

const SANDBOX_NAME = /^lh-[0-9a-f]{24}$/;

/** The same key always gives the same name, and the vendor keeps names apart: that is what makes creation idempotent. */
export function sandboxName(owner: string, key: string): string {
  return `lh-${digest(`${owner}\0${key}`, 24)}`;
}

export function requireName(id: string): string {
  if (SANDBOX_NAME.test(id)) return id;
  throw new LonghaulError('sandbox_invalid', 'is no daytona sandbox of Longhaul', { field: 'id' });
}

/** Snapshots have no labels: their names tell whose they are. */
export function snapshotPrefix(owner: string): string {
  return `lh-snap-${digest(owner, 16)}-`;
}

export function snapshotName(owner: string, sandbox: string, key: string): string {
  return `${snapshotPrefix(owner)}${digest(`${sandbox}\0${key}`, 24)}`;
}

export interface NetworkSettings {
  networkBlockAll: boolean;
  networkAllowList: string;
  domainAllowList: string;
}

/** The vendor's own filter holds what is allowed; the proxy variable alone would keep nobody in. */
export function networkSettings(network: SandboxNetwork): NetworkSettings {
  const closed = { networkBlockAll: true, networkAllowList: '', domainAllowList: '' };
  switch (network.type) {
    case 'none':
      return closed;
    case 'open':
      return { ...closed, networkBlockAll: false };
    case 'native':
      if (network.allowedHosts.length === 0) return closed;
      return { ...closed, networkBlockAll: false, domainAllowList: network.allowedHosts.join(',') };
    case 'broker': {
      if (network.proxy === null) {
        throw new LonghaulError('sandbox_unsupported', 'daytona sandboxes reach the broker by its address only');
      }
      const { host } = network.proxy;
      const version = isIP(host);
      if (version === 0) return { ...closed, networkBlockAll: false, domainAllowList: host };
      return { ...closed, networkBlockAll: false, networkAllowList: `${host}/${version === 4 ? 32 : 128}` };
    }
    default:
      return network satisfies never;
  }
}

function proxyUrl(network: SandboxNetwork): string | undefined {
  if (network.type !== 'broker' || network.proxy === null) return undefined;
  const { host, port } = network.proxy;
  return `http://${isIP(host) === 6 ? `[${host}]` : host}:${port}`;
}

/** `name:tag` and `registry/name` are images, built when they are first used; anything else names a snapshot. */
function isImage(name: string): boolean {
  return /[/:]/.test(name);
}

export interface CreateOptions {
  key: string;
  /** Beyond it the vendor destroys the sandbox whatever its state: what is left when nobody reaps. */
  maxIdleMs: number;
  /** Environment variable → name of a secret kept by the vendor, which puts it into requests to the secret's hosts. */
  secrets: Record<string, string>;
  nowMs: number;
}

/** Minutes after which the vendor destroys what nobody extended; never before the lease ends. */
export function ttlMinutes(ttlMs: number, maxIdleMs: number): number {
  return Math.ceil(Math.max(ttlMs, maxIdleMs) / 60_000);
}

function gib(bytes: number): number {
  return Math.max(1, Math.ceil(bytes / GIB));
}

/** What the vendor is asked for. */
export function createParams(
  spec: SandboxSpec,
  options: CreateOptions,
): CreateSandboxFromImageParams | CreateSandboxFromSnapshotParams {
  const network = spec.network ?? { type: 'none' };
  const { networkBlockAll, networkAllowList, domainAllowList } = networkSettings(network);
  const proxy = proxyUrl(network);
  const base = {
    name: sandboxName(spec.owner, options.key),
    language: 'javascript',
    envVars: spec.env,
    labels: { ...spec.labels, ...leaseLabels(spec.owner, options.nowMs + spec.ttlMs), [LABEL.key]: options.key },
    public: false,
    // Its leases are Longhaul's: an agent may think longer than the vendor's quarter of an hour.
    autoStopInterval: 0,
    ttlMinutes: ttlMinutes(spec.ttlMs, options.maxIdleMs),
    networkBlockAll,
    ...(networkAllowList === '' ? {} : { networkAllowList }),
    ...(domainAllowList === '' ? {} : { domainAllowList }),
    ...(proxy === undefined ? {} : { outboundProxyUrl: proxy }),
    ...(Object.keys(options.secrets).length === 0 ? {} : { secrets: options.secrets }),
  };
  if (spec.snapshot !== undefined) return { ...base, snapshot: spec.snapshot.id };
  if (spec.image === undefined) return base;
  if (!isImage(spec.image)) return { ...base, snapshot: spec.image };
  const resources = {
    cpu: Math.max(1, Math.ceil(spec.cpus)),
    memory: gib(spec.memoryBytes),
    disk: gib(spec.diskBytes),
  };
  return { ...base, image: spec.image, resources };
}

/** The owner, so that `list` finds it, and the end of its lease, which the vendor has no field for. */
export function leaseLabels(owner: string, expiresAtMs: number): Record<string, string> {
  return { [LABEL.owner]: owner, [LABEL.expires]: String(expiresAtMs) };
}

/** The caller's labels. */
export function callersLabels(labels: Record<string, string>): Record<string, string> {
  const ours = new Set<string>([...Object.values(LABEL), FOREIGN_LABEL]);
  return Object.fromEntries(Object.entries(labels).filter(([name]) => !ours.has(name)));
}
