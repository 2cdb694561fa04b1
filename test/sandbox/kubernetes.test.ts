import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { readKubernetesConfig } from '../../activities/sandbox/kubernetes/config.ts';
import { loadKubernetes } from '../../activities/sandbox/kubernetes/load.ts';
import { KubernetesProvider } from '../../activities/sandbox/kubernetes/provider.ts';
import type { SandboxNetwork, SandboxRef } from '../../activities/sandbox/port.ts';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { codeOf, listed } from '../conformance/sandbox-parts.ts';
import { sandboxConformance } from '../conformance/sandbox.suite.ts';
import { CLAIMS, PODS, POOLS, SANDBOXES, TEMPLATES } from '../doubles/kubernetes/controller.ts';
import type { KubeObject } from '../doubles/kubernetes/store.ts';
import type { KubernetesBed } from '../support/kubernetes-bed.ts';
import { makeKubernetesBed } from '../support/kubernetes-bed.ts';
import { follow, LONG_MS, shell, smallSpec, soon, until } from '../support/sandbox-commands.ts';

sandboxConformance('kubernetes (API double, not a cluster), the official client', makeKubernetesBed);

const POLICIES = 'networking.k8s.io/networkpolicies';
const OWNER = 'cluster';

describe('kubernetes (API double, not a cluster): what is its own', { timeout: LONG_MS }, () => {
  let bed: KubernetesBed;
  let ref: SandboxRef;
  const objectOf = (at: SandboxRef): KubeObject => bed.double.store.get(SANDBOXES, at.id);

  beforeAll(async () => {
    bed = await makeKubernetesBed();
    ref = await bed.provider.create(smallSpec(OWNER, { env: { A: 'b' } }), 'shared', soon());
  });

  afterEach(() => bed.double.heal());

  afterAll(async () => {
    await bed.close();
  });

  it('asks for a pod that has no rights, its limits, and an end of its own', async () => {
    await shell(bed.provider, ref, 'true');
    const { metadata, spec } = objectOf(ref);
    expect(metadata.labels).toEqual({
      'longhaul.dev/sandbox': 'true',
      'longhaul.dev/owner': expect.stringMatching(/^[0-9a-f]{32}$/),
    });
    expect(spec).toMatchObject({ operatingMode: 'Running', shutdownPolicy: 'Delete', service: false });
    const shutdownMs = Date.parse(String(spec?.['shutdownTime']));
    expect(shutdownMs - Date.now()).toBeGreaterThan(6 * 24 * 3_600_000);
    expect(spec?.['podTemplate']).toMatchObject({
      metadata: { labels: { 'longhaul.dev/sandbox': 'true', 'longhaul.dev/network': 'none' } },
      spec: {
        automountServiceAccountToken: false,
        containers: [
          {
            image: 'debian:12',
            resources: { limits: { cpu: '1000m', memory: String(256 * 1024 * 1024) } },
            securityContext: { allowPrivilegeEscalation: false, seccompProfile: { type: 'RuntimeDefault' } },
          },
        ],
      },
    });
    expect(bed.double.protocols.at(-1)).toContain('v5.channel.k8s.io');
  });

  it('lets nothing out but what a network policy of the sandbox’s label allows', async () => {
    const labelOf = async (key: string, network: SandboxNetwork): Promise<string> => {
      const made = await bed.provider.create(smallSpec(OWNER, { network }), key, soon());
      const label = bed.double.store.get(PODS, made.id).metadata.labels?.['longhaul.dev/network'] ?? '';
      await bed.provider.destroy(made, soon());
      return label;
    };
    const proxy = { host: '10.0.0.7', port: 3128 };
    const deny = bed.double.store.get(POLICIES, 'longhaul-deny').spec;
    const podSelector = { matchLabels: { 'longhaul.dev/sandbox': 'true' } };
    expect(deny).toEqual({ podSelector, policyTypes: ['Ingress', 'Egress'], egress: [] });
    const broker = await labelOf('net-broker', { type: 'broker', proxy });
    expect(broker).toMatch(/^broker-[0-9a-f]{16}$/);
    expect(bed.double.store.get(POLICIES, `longhaul-${broker}`).spec).toEqual({
      podSelector: { matchLabels: { 'longhaul.dev/sandbox': 'true', 'longhaul.dev/network': broker } },
      policyTypes: ['Egress'],
      egress: [{ to: [{ ipBlock: { cidr: '10.0.0.7/32' } }], ports: [{ protocol: 'TCP', port: 3128 }] }],
    });
    expect(await labelOf('net-nothing', { type: 'native', allowedHosts: [] })).toBe('none');
    const named = bed.provider.create(
      smallSpec(OWNER, { network: { type: 'native', allowedHosts: ['example.com'] } }),
      'net-named',
      soon(),
    );
    expect(await codeOf(named)).toBe('sandbox_unsupported');
    await bed.provider.setNetwork(ref, { type: 'broker', proxy }, soon());
    expect(bed.double.store.get(PODS, ref.id).metadata.labels?.['longhaul.dev/network']).toBe(broker);
    expect(objectOf(ref).spec?.['podTemplate']).toMatchObject({
      metadata: { labels: { 'longhaul.dev/network': broker } },
    });
    await bed.provider.setNetwork(ref, { type: 'none' }, soon());
    expect(bed.double.store.get(PODS, ref.id).metadata.labels?.['longhaul.dev/network']).toBe('none');
  });

  it('claims a warm sandbox where the environment names a pool, and pauses and ends it as any other', async () => {
    const container = { name: 'sandbox', image: 'agents:1' };
    const podTemplate = { metadata: { labels: { 'longhaul.dev/sandbox': 'true' } }, spec: { containers: [container] } };
    bed.double.store.create(TEMPLATES, { metadata: { name: 'agents' }, spec: { podTemplate } });
    const spec = { replicas: 2, sandboxTemplateRef: { name: 'agents' } };
    bed.double.store.create(POOLS, { metadata: { name: 'warm' }, spec });
    await until('two are warm', () => Promise.resolve(bed.double.store.find(PODS, 'warm-2') !== undefined));
    const change = { image: 'pool:warm', env: { FROM: 'claim' } };
    const refs = await Promise.all([1, 2].map(() => bed.provider.create(smallSpec(OWNER, change), 'claimed', soon())));
    const [claimed] = refs;
    if (claimed === undefined) throw new Error('nothing was claimed');
    expect(refs[1]).toEqual(claimed);
    const { name } = (bed.double.store.get(CLAIMS, claimed.id).status?.['sandbox'] ?? {}) as { name: string };
    expect(name).toMatch(/^warm-[12]$/);
    expect(bed.double.store.get(PODS, name).metadata.labels?.['longhaul.dev/network']).toBe('none');
    expect((await shell(bed.provider, claimed, 'echo $FROM > kept; cat kept')).stdout).toBe('claim\n');
    expect((await listed(bed.provider, OWNER)).map((each) => each.ref)).toContainEqual(claimed);
    expect(await bed.provider.pause(claimed, soon())).toBe(true);
    expect((await bed.provider.get(claimed, soon()))?.state).toBe('paused');
    expect(await bed.provider.resume(claimed, soon())).toBe(true);
    expect((await shell(bed.provider, claimed, 'cat kept')).stdout).toBe('claim\n');
    await bed.provider.extend(claimed, 3_600_000, soon());
    expect(await bed.provider.destroy(claimed, soon())).toBe(true);
    expect(await bed.provider.destroy(claimed, soon())).toBe(false);
    await until('its pod is gone', () => Promise.resolve(bed.double.store.find(PODS, name) === undefined));
    await until('the pool is full again', () => Promise.resolve(bed.double.store.find(PODS, 'warm-3') !== undefined));
    const trusting = smallSpec(OWNER, { image: 'pool:warm', trustBundleFile: bed.double.kubeconfigFile });
    expect(await codeOf(bed.provider.create(trusting, 'trusting', soon()))).toBe('sandbox_unsupported');
  });

  it('tells errors of the API server as the port’s, each with its retry class', async () => {
    const cases = [
      [401, 'Unauthorized', 'sandbox_auth', false],
      [403, 'sandboxes is forbidden: no rights', 'sandbox_auth', false],
      [403, 'exceeded quota: team, requested: pods=1', 'sandbox_quota', false],
      [422, 'spec.podTemplate is invalid', 'sandbox_invalid', false],
      [429, 'too many requests', 'sandbox_busy', true],
      [500, 'etcdserver: leader changed', 'sandbox_unavailable', true],
      [503, 'apiserver is shutting down', 'sandbox_unavailable', true],
    ] as const;
    for (const [how, message, code, retryable] of cases) {
      bed.double.fail({ method: 'POST', path: /\/sandboxes$/, how, message, headers: { 'retry-after': '3' } });
      const made = bed.provider.create(smallSpec(OWNER), `code-${how}`, soon());
      const error = (await made.catch((each: unknown) => each)) as LonghaulError;
      expect(error).toBeInstanceOf(LonghaulError);
      expect([how, error.code, error.retryable, error.retryAfterMs]).toEqual([how, code, retryable, 3_000]);
      expect(error.message).toContain(message);
    }
    bed.double.fail({ path: /\/sandboxes\//, how: 'drop', times: 9 });
    expect(await codeOf(bed.provider.get(ref, soon()))).toBe('sandbox_unavailable');
  });

  it('makes one sandbox although the answer to the first try was lost', async () => {
    bed.double.fail({ method: 'POST', path: /\/sandboxes$/, how: 'drop_after' });
    expect(await codeOf(bed.provider.create(smallSpec(OWNER), 'unheard', soon()))).toBe('sandbox_unavailable');
    const made = await bed.provider.create(smallSpec(OWNER), 'unheard', soon());
    expect((await shell(bed.provider, made, 'echo works')).stdout).toBe('works\n');
    expect(bed.double.store.list(SANDBOXES).filter((each) => each.metadata.name === made.id)).toHaveLength(1);
  });

  it('starts a command once although nobody hears that it started, and takes no part for the whole', async () => {
    const spec = { execId: 'unheard', argv: ['sh', '-c', 'echo ran >> unheard'], timeoutMs: 60_000 };
    bed.double.fail({ path: /\/exec$/, how: 'drop_after' });
    expect(await codeOf(bed.provider.execStart(ref, spec, soon()))).toBe('sandbox_unavailable');
    await bed.provider.execStart(ref, spec, soon());
    await follow(bed.provider, ref, 'unheard');
    expect((await shell(bed.provider, ref, 'cat unheard')).stdout).toBe('ran\n');
    bed.double.fail({ path: /\/exec$/, how: 'drop' });
    expect(await codeOf(bed.provider.readFile(ref, '/workspace/unheard', 10, soon()))).toBe('sandbox_unavailable');
  });

  it('pauses and extends although the object changes at the same moment', async () => {
    const made = await bed.provider.create(smallSpec(OWNER), 'conflicts', soon());
    const { store } = bed.double;
    const patched = store.patch.bind(store);
    let conflicts = 0;
    store.patch = (resource, name, patch) => {
      if (conflicts < 3) store.change(resource, name, () => (conflicts += 1));
      return patched(resource, name, patch);
    };
    try {
      await bed.provider.extend(made, 3_600_000, soon());
      expect(conflicts).toBe(3);
    } finally {
      store.patch = patched;
    }
    const paused = await Promise.all([1, 2, 3].map(() => bed.provider.pause(made, soon())));
    expect(paused.filter(Boolean)).toHaveLength(1);
  });

  it('says that a sandbox is lost while it has no pod, and goes on with its files in the next', async () => {
    const made = await bed.provider.create(smallSpec(OWNER), 'evicted', soon());
    await shell(bed.provider, made, 'echo kept > kept');
    await bed.provider.execStart(made, { execId: 'long', argv: ['sleep', '600'], timeoutMs: 600_000 }, soon());
    await bed.double.controller.loseNode(made.id);
    expect((await bed.provider.get(made, soon()))?.state).toBe('stopped');
    expect(await codeOf(shell(bed.provider, made, 'true'))).toBe('sandbox_lost');
    const back = bed.provider.resume(made, soon());
    // Else it might find the next pod there already.
    await until('it waits for a pod', () => Promise.resolve(bed.double.isWatched(made.id)));
    bed.double.controller.recover(made.id);
    expect(await back).toBe(true);
    expect((await shell(bed.provider, made, 'cat kept')).stdout).toBe('kept\n');
    expect((await follow(bed.provider, made, 'long')).status).toEqual({ state: 'lost' });
  });

  it('is gone when nobody extended it', async () => {
    const made = await bed.provider.create(smallSpec(OWNER), 'expired', soon());
    bed.double.store.patch(SANDBOXES, made.id, { spec: { shutdownTime: '2020-01-01T00:00:00Z' } });
    expect(await bed.provider.get(made, soon())).toBeNull();
    expect(await codeOf(shell(bed.provider, made, 'true'))).toBe('sandbox_not_found');
  });

  it('gives up when asked to, and with a key that is not good', async () => {
    bed.double.fail({ path: new RegExp(ref.id), how: 'hang' });
    const waiting = new AbortController();
    const answer = bed.provider.get(ref, waiting.signal);
    await until('it waits', () => Promise.resolve(bed.double.unanswered > 0));
    waiting.abort(new DOMException('stop', 'AbortError'));
    await expect(answer).rejects.toMatchObject({ name: 'AbortError' });
    const file = `${bed.double.kubeconfigFile}.stranger`;
    bed.double.writeKubeconfig(file, 'not-the-token');
    const stranger = new KubernetesProvider({ namespace: bed.double.namespace, kubeconfigFile: file });
    expect(await codeOf(stranger.get(ref, soon()))).toBe('sandbox_auth');
    const elsewhere = new KubernetesProvider({ namespace: 'other', kubeconfigFile: bed.double.kubeconfigFile });
    expect(await codeOf(elsewhere.create(smallSpec(OWNER), 'elsewhere', soon()))).toBe('sandbox_auth');
  });

  it('tells how to install the client when it is not there, and which setting is wrong', async () => {
    await expect(loadKubernetes('@kubernetes/no-such-client')).rejects.toMatchObject({
      code: 'sandbox_unsupported',
      message: 'the provider kubernetes needs the official client: npm install @kubernetes/no-such-client',
    });
    expect(readKubernetesConfig({})).toBeUndefined();
    const env = { LONGHAUL_KUBERNETES_NAMESPACE: 'agents', LONGHAUL_KUBERNETES_RUNTIME_CLASS: 'gvisor' };
    expect(readKubernetesConfig({ ...env, LONGHAUL_KUBERNETES_BROKER_LABELS: 'app=longhaul, part=egress' })).toEqual({
      namespace: 'agents',
      runtimeClassName: 'gvisor',
      brokerLabels: { app: 'longhaul', part: 'egress' },
      templateTrust: false,
    });
    expect(() => readKubernetesConfig({ ...env, LONGHAUL_KUBERNETES_BROKER_LABELS: 'app' })).toThrow(/label=value/);
    expect(() => readKubernetesConfig({ LONGHAUL_KUBERNETES_NAMESPACE: 'No Name' })).toThrow(LonghaulError);
  });
});
