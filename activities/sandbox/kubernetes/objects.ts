import { createHash } from 'node:crypto';
import { isIP } from 'node:net';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import type { SandboxNetwork, SandboxSpec } from '../port.ts';

export const SANDBOXES = { group: 'agents.x-k8s.io', version: 'v1beta1', plural: 'sandboxes' } as const;
export const CLAIMS = { group: 'extensions.agents.x-k8s.io', version: 'v1beta1', plural: 'sandboxclaims' } as const;

/** Labels select; values are short and plain, so what may be anything stands in annotations. */
export const LABEL = {
  managed: 'longhaul.dev/sandbox',
  owner: 'longhaul.dev/owner',
  network: 'longhaul.dev/network',
} as const;
export const ANNOTATION = {
  owner: 'longhaul.dev/owner',
  labels: 'longhaul.dev/labels',
  env: 'longhaul.dev/env',
  expires: 'longhaul.dev/expires-ms',
} as const;
/** Set by the controller on a sandbox whose pod came from a warm pool under another name. */
const POD_NAME_ANNOTATION = 'agents.x-k8s.io/pod-name';
export const CONTAINER = 'sandbox';
const POOL = /^pool:([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)$/;
const SANDBOX_NAME = /^lh-[0-9a-f]{24}$/;

interface Condition {
  type: string;
  status: string;
  reason?: string;
}

/** What of a Sandbox or SandboxClaim is read. */
export interface AgentObject {
  metadata: {
    name: string;
    uid?: string;
    resourceVersion?: string;
    creationTimestamp?: string;
    deletionTimestamp?: string;
    labels?: Record<string, string>;
    annotations?: Record<string, string>;
  };
  spec: { operatingMode?: string; shutdownTime?: string; lifecycle?: { shutdownTime?: string } };
  status?: { conditions?: Condition[]; sandbox?: { name?: string } };
}

export type Kind = 'sandbox' | 'claim';

export interface KubernetesShape {
  /** Image of environments that name none. */
  defaultImage: string;
  runtimeClassName?: string;
  storageClassName?: string;
  /** Labels of the broker's pods, where it runs in the cluster: policies of most networks see pods, not services. */
  brokerLabels?: Record<string, string>;
  /** Templates of warm pools bring the authorities that programs inside trust. */
  templateTrust?: boolean;
}

function digest(text: string, characters: number): string {
  return createHash('sha256').update(text).digest('hex').slice(0, characters);
}

/** The same key always gives the same name, and a namespace has each name once: that makes creation idempotent. */
export function sandboxName(owner: string, key: string): string {
  return `lh-${digest(`${owner}\0${key}`, 24)}`;
}

export function requireName(id: string): string {
  if (SANDBOX_NAME.test(id)) return id;
  throw new LonghaulError('sandbox_invalid', 'is no kubernetes sandbox of Longhaul', { field: 'id' });
}

export function ownerLabel(owner: string): string {
  return digest(owner, 32);
}

/** `pool:<name>` claims one that is warm. */
export function poolOf(image: string | undefined): string | null {
  return POOL.exec(image ?? '')?.[1] ?? null;
}

export function conditionOf(object: AgentObject, type: string): Condition | undefined {
  return object.status?.conditions?.find((each) => each.type === type);
}

export function podNameOf(sandbox: AgentObject): string {
  return sandbox.metadata.annotations?.[POD_NAME_ANNOTATION] ?? sandbox.metadata.name;
}

export interface NetworkRule {
  /** Value of the pod's network label. */
  label: string;
  policy: object | null;
}

/** Nothing gets out by the policy for all sandboxes; each other network is one policy more, for the pods of its label. */
export function networkRule(network: SandboxNetwork, shape: Pick<KubernetesShape, 'brokerLabels'>): NetworkRule {
  switch (network.type) {
    case 'none':
      return { label: 'none', policy: null };
    case 'open':
      return rule('open', [{}]);
    case 'native':
      if (network.allowedHosts.length === 0) return { label: 'none', policy: null };
      return hashed('native', [{ to: network.allowedHosts.map((host) => ({ ipBlock: { cidr: cidrOf(host) } })) }]);
    case 'broker': {
      if (network.proxy === null) {
        throw new LonghaulError('sandbox_unsupported', 'kubernetes sandboxes reach the broker by its address only');
      }
      const { host, port } = network.proxy;
      const pods = shape.brokerLabels;
      const broker = pods === undefined ? [] : [{ namespaceSelector: {}, podSelector: { matchLabels: pods } }];
      const to = [{ ipBlock: { cidr: cidrOf(host) } }, ...broker];
      return hashed('broker', [{ to, ports: [{ protocol: 'TCP', port }] }]);
    }
    default:
      return network satisfies never;
  }
}

/** Network policies know addresses, no names. */
function cidrOf(host: string): string {
  const [address = '', bits] = host.split('/');
  const version = isIP(address);
  if (version === 0 || (bits !== undefined && !/^\d{1,3}$/.test(bits))) {
    throw new LonghaulError('sandbox_unsupported', `kubernetes network policies know addresses only, not ${host}`);
  }
  return `${address}/${bits ?? (version === 4 ? '32' : '128')}`;
}

function hashed(kind: string, egress: object[]): NetworkRule {
  return rule(`${kind}-${digest(JSON.stringify(egress), 16)}`, egress);
}

function rule(label: string, egress: object[]): NetworkRule {
  const matchLabels = { [LABEL.managed]: 'true', [LABEL.network]: label };
  return { label, policy: policy(`longhaul-${label}`, matchLabels, ['Egress'], egress) };
}

function policy(name: string, matchLabels: Record<string, string>, policyTypes: string[], egress: object[]): object {
  return {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: { name, labels: { [LABEL.managed]: 'true' } },
    spec: { podSelector: { matchLabels }, policyTypes, egress },
  };
}

/** For every pod of a sandbox, whatever else is allowed: nothing in, nothing out. */
export const DENY_ALL = policy('longhaul-deny', { [LABEL.managed]: 'true' }, ['Ingress', 'Egress'], []);

export interface Lease {
  expiresAtMs: number;
  /** When the controller deletes it although nobody reaped it. */
  shutdownAtMs: number;
}

function metadata(spec: SandboxSpec, key: string, lease: Lease): object {
  return {
    name: sandboxName(spec.owner, key),
    labels: { [LABEL.managed]: 'true', [LABEL.owner]: ownerLabel(spec.owner) },
    annotations: {
      [ANNOTATION.owner]: spec.owner,
      [ANNOTATION.labels]: JSON.stringify(spec.labels),
      [ANNOTATION.env]: JSON.stringify(spec.env),
      [ANNOTATION.expires]: String(lease.expiresAtMs),
    },
  };
}

/** RFC 3339 to the second, as the API wants it. */
export function timestamp(ms: number): string {
  return new Date(Math.ceil(ms / 1_000) * 1_000).toISOString().replace('.000Z', 'Z');
}

/** A sandbox from a warm pool: what runs in it is the template's business, how long and what it reaches is ours. */
export function claimOf(spec: SandboxSpec, key: string, pool: string, network: string, lease: Lease): object {
  return {
    apiVersion: `${CLAIMS.group}/${CLAIMS.version}`,
    kind: 'SandboxClaim',
    metadata: metadata(spec, key, lease),
    spec: {
      warmPoolRef: { name: pool },
      lifecycle: { shutdownTime: timestamp(lease.shutdownAtMs), shutdownPolicy: 'Delete' },
      additionalPodMetadata: { labels: { [LABEL.managed]: 'true', [LABEL.network]: network } },
    },
  };
}

export function sandboxOf(
  spec: SandboxSpec,
  key: string,
  shape: KubernetesShape,
  network: string,
  lease: Lease,
  trust: string | undefined,
): object {
  const { runtimeClassName, storageClassName } = shape;
  return {
    apiVersion: `${SANDBOXES.group}/${SANDBOXES.version}`,
    kind: 'Sandbox',
    metadata: metadata(spec, key, lease),
    spec: {
      operatingMode: 'Running',
      shutdownTime: timestamp(lease.shutdownAtMs),
      shutdownPolicy: 'Delete',
      service: false,
      volumeClaimTemplates: [
        {
          metadata: { name: 'files' },
          spec: {
            accessModes: ['ReadWriteOnce'],
            ...(storageClassName === undefined ? {} : { storageClassName }),
            resources: { requests: { storage: String(spec.diskBytes) } },
          },
        },
      ],
      podTemplate: {
        metadata: { labels: { [LABEL.managed]: 'true', [LABEL.network]: network } },
        spec: {
          ...(runtimeClassName === undefined ? {} : { runtimeClassName }),
          automountServiceAccountToken: false,
          enableServiceLinks: false,
          // So that what commands leave behind is reaped.
          shareProcessNamespace: true,
          terminationGracePeriodSeconds: 2,
          containers: [containerOf(spec, shape, trust)],
          volumes: trust === undefined ? [] : [{ name: 'trust', configMap: { name: trust } }],
        },
      },
    },
  };
}

function containerOf(spec: SandboxSpec, shape: KubernetesShape, trust: string | undefined): object {
  const cpu = `${Math.max(1, Math.round(spec.cpus * 1_000))}m`;
  // The claim's folders outlive the pod: a suspended sandbox has none. The journal of commands is under /tmp.
  const files = [
    { name: 'files', mountPath: '/workspace', subPath: 'workspace' },
    { name: 'files', mountPath: '/tmp', subPath: 'tmp' },
  ];
  const bundle = '/etc/ssl/certs/ca-certificates.crt';
  const mount = { name: 'trust', mountPath: bundle, subPath: 'ca-certificates.crt', readOnly: true };
  return {
    name: CONTAINER,
    image: spec.image ?? shape.defaultImage,
    command: ['/bin/sh', '-c', 'trap "exit 0" TERM; while :; do sleep 3600 & wait $!; done'],
    workingDir: '/workspace',
    resources: {
      limits: { cpu, memory: String(spec.memoryBytes), 'ephemeral-storage': String(spec.diskBytes) },
      requests: { cpu: '100m', memory: String(Math.min(spec.memoryBytes, 256 * 1024 * 1024)) },
    },
    securityContext: {
      allowPrivilegeEscalation: false,
      capabilities: { drop: ['NET_RAW', 'MKNOD', 'SYS_CHROOT', 'AUDIT_WRITE'] },
      seccompProfile: { type: 'RuntimeDefault' },
    },
    volumeMounts: trust === undefined ? files : [...files, mount],
  };
}

/** Named by its content, so that all sandboxes of one bundle share one. */
export function trustConfigMap(bundle: string): { name: string; body: object } {
  const name = `longhaul-trust-${digest(bundle, 24)}`;
  const labels = { [LABEL.managed]: 'true' };
  const body = {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name, labels },
    data: { 'ca-certificates.crt': bundle },
  };
  return { name, body };
}
