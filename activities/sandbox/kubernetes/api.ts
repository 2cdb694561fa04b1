import type { ConfigurationOptions, KubeConfig, ObservableMiddleware } from '@kubernetes/client-node';
import { anyAbort } from '../../../contracts/abort.ts';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import { unlessAborted } from '../abort.ts';
import { deferred } from './deferred.ts';
import { normalised, statusOf } from './errors.ts';
import type { KubernetesClient } from './load.ts';
import { loadKubernetes } from './load.ts';
import type { AgentObject, CLAIMS, SANDBOXES } from './objects.ts';

export interface ClusterOptions {
  namespace: string;
  /** Absent: the service account of the pod this runs in, or the usual file of the user. */
  kubeconfigFile?: string;
  context?: string;
}

export interface Page {
  items: AgentObject[];
  next: string | undefined;
}

type Resource = typeof SANDBOXES | typeof CLAIMS;
type Options = ConfigurationOptions;

const REQUEST_TIMEOUT_MS = 30_000;
/** A watch is begun anew after this long: connections die without a word. */
const WATCH_MS = 25_000;
const PAGE = 200;
const CONFLICTS = 10;

/** The official client behind the port's manners. */
export class Cluster {
  readonly namespace: string;
  private readonly options: ClusterOptions;
  private connection: Promise<{ client: KubernetesClient; config: KubeConfig }> | undefined;

  constructor(options: ClusterOptions) {
    this.options = options;
    this.namespace = options.namespace;
  }

  connect(): Promise<{ client: KubernetesClient; config: KubeConfig }> {
    this.connection ??= this.load().catch((error: unknown) => {
      this.connection = undefined;
      throw error;
    });
    return this.connection;
  }

  private async load(): Promise<{ client: KubernetesClient; config: KubeConfig }> {
    const client = await loadKubernetes();
    const config = new client.KubeConfig();
    try {
      if (this.options.kubeconfigFile === undefined) config.loadFromDefault();
      else config.loadFromFile(this.options.kubeconfigFile);
      if (this.options.context !== undefined) config.setCurrentContext(this.options.context);
    } catch (cause) {
      throw new LonghaulError('sandbox_auth', 'the kubeconfig cannot be read', { cause });
    }
    return { client, config };
  }

  /** One request of the client; `work` gets options with a deadline. */
  private async ask<T>(
    what: string,
    signal: AbortSignal,
    work: (client: KubernetesClient, config: KubeConfig, options: Options) => Promise<T>,
  ): Promise<T> {
    const late = AbortSignal.timeout(REQUEST_TIMEOUT_MS);
    try {
      const { client, config } = await this.connect();
      const options = withDeadline(client, anyAbort([signal, late]));
      return await unlessAborted(signal, work(client, config, options));
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      if (!late.aborted || statusOf(error) !== undefined) throw normalised(error, what);
      throw new LonghaulError('sandbox_unavailable', `kubernetes: ${what}: no answer in time`, { cause: error });
    }
  }

  /** Null when there is one of that name already. */
  async create(resource: Resource, body: object, signal: AbortSignal): Promise<AgentObject | null> {
    return this.ask('create a sandbox', signal, async (client, config, options) => {
      const api = config.makeApiClient(client.CustomObjectsApi);
      try {
        return (await api.createNamespacedCustomObject(
          { ...resource, namespace: this.namespace, body },
          options,
        )) as AgentObject;
      } catch (error) {
        if (statusOf(error) === 409) return null;
        throw error;
      }
    });
  }

  /** Null when it is gone, or on its way out. */
  async find(resource: Resource, name: string, signal: AbortSignal): Promise<AgentObject | null> {
    return this.ask('look for the sandbox', signal, async (client, config, options) => {
      const api = config.makeApiClient(client.CustomObjectsApi);
      try {
        const found = (await api.getNamespacedCustomObject(
          { ...resource, namespace: this.namespace, name },
          options,
        )) as AgentObject;
        return found.metadata.deletionTimestamp === undefined ? found : null;
      } catch (error) {
        if (statusOf(error) === 404) return null;
        throw error;
      }
    });
  }

  list(resource: Resource, labelSelector: string, from: string | undefined, signal: AbortSignal): Promise<Page> {
    return this.ask('list sandboxes', signal, async (client, config, options) => {
      const api = config.makeApiClient(client.CustomObjectsApi);
      const request = { ...resource, namespace: this.namespace, labelSelector, limit: PAGE };
      const page = (await api.listNamespacedCustomObject(
        from === undefined ? request : { ...request, _continue: from },
        options,
      )) as { items: AgentObject[]; metadata?: { continue?: string } };
      const next = page.metadata?.continue;
      return { items: page.items, next: next === '' ? undefined : next };
    });
  }

  /** A change that holds only for what was looked at: `change` sees the newest object, and says null for nothing to do. */
  async update(
    resource: Resource,
    name: string,
    change: (object: AgentObject) => object | null,
    signal: AbortSignal,
  ): Promise<'changed' | 'unchanged' | 'gone'> {
    for (let tries = 1; ; tries += 1) {
      const found = await this.find(resource, name, signal);
      if (found === null) return 'gone';
      const wanted = change(found);
      if (wanted === null) return 'unchanged';
      const body = { ...wanted, metadata: { ...metadataOf(wanted), resourceVersion: found.metadata.resourceVersion } };
      const result = await this.patch(resource, name, body, signal);
      if (result === 'changed' || result === 'gone') return result;
      if (tries >= CONFLICTS)
        throw new LonghaulError('sandbox_unavailable', 'kubernetes: the sandbox changes all the time');
    }
  }

  private patch(
    resource: Resource,
    name: string,
    body: object,
    signal: AbortSignal,
  ): Promise<'changed' | 'conflict' | 'gone'> {
    return this.ask('change the sandbox', signal, async (client, config, options) => {
      const api = config.makeApiClient(client.CustomObjectsApi);
      const merge = client.setHeaderOptions('Content-Type', client.PatchStrategy.MergePatch, options);
      try {
        await api.patchNamespacedCustomObject({ ...resource, namespace: this.namespace, name, body }, merge);
        return 'changed';
      } catch (error) {
        if (statusOf(error) === 404) return 'gone';
        if (statusOf(error) === 409) return 'conflict';
        throw error;
      }
    });
  }

  /** False when it was gone. What belongs to it (pod, volume claims) goes with it. */
  remove(resource: Resource, name: string, signal: AbortSignal): Promise<boolean> {
    return this.ask('destroy', signal, async (client, config, options) => {
      const api = config.makeApiClient(client.CustomObjectsApi);
      try {
        const request = { ...resource, namespace: this.namespace, name, propagationPolicy: 'Background' };
        await api.deleteNamespacedCustomObject(request, options);
        return true;
      } catch (error) {
        if (statusOf(error) === 404) return false;
        throw error;
      }
    });
  }

  /** Follows the object until `isDone` says so of it or of its absence; true then, false when the time is over. */
  async follow(
    resource: Resource,
    name: string,
    isDone: (object: AgentObject | null) => boolean,
    waitMs: number,
    signal: AbortSignal,
  ): Promise<boolean> {
    const deadlineMs = Date.now() + waitMs;
    for (;;) {
      const found = await this.find(resource, name, signal);
      if (isDone(found)) return true;
      const leftMs = deadlineMs - Date.now();
      if (leftMs <= 0) return false;
      await this.watch(resource, name, found?.metadata.resourceVersion, isDone, Math.min(leftMs, WATCH_MS), signal);
    }
  }

  /** Ends with the first event that may matter; what is true is read anew. */
  private async watch(
    resource: Resource,
    name: string,
    resourceVersion: string | undefined,
    isDone: (object: AgentObject | null) => boolean,
    waitMs: number,
    signal: AbortSignal,
  ): Promise<void> {
    const { client, config } = await this.connect();
    const { group, version, plural } = resource;
    const path = `/apis/${group}/${version}/namespaces/${this.namespace}/${plural}`;
    const query = {
      fieldSelector: `metadata.name=${name}`,
      timeoutSeconds: Math.ceil(waitMs / 1_000),
      ...(resourceVersion === undefined ? {} : { resourceVersion }),
    };
    const ended = deferred<undefined>();
    const stop = (): void => ended.resolve(undefined);
    const timer = setTimeout(stop, waitMs);
    signal.addEventListener('abort', stop, { once: true });
    let watching: AbortController | undefined;
    try {
      watching = await new client.Watch(config).watch(
        path,
        query,
        (type: string, object: AgentObject) => {
          if (type === 'ERROR' || isDone(type === 'DELETED' ? null : object)) stop();
        },
        (error: unknown) => (error === null || error === undefined ? stop() : ended.reject(error)),
      );
      await ended.promise;
    } catch (error) {
      throw normalised(error, 'watch the sandbox');
    } finally {
      clearTimeout(timer);
      signal.removeEventListener('abort', stop);
      watching?.abort();
    }
    signal.throwIfAborted();
  }

  /** Things that are the same whoever makes them: there already is as good as made. */
  async ensure(kind: 'policy' | 'configMap', body: object, signal: AbortSignal): Promise<void> {
    await this.ask(`make a ${kind}`, signal, async (client, config, options) => {
      const { namespace } = this;
      try {
        if (kind === 'policy') {
          await config
            .makeApiClient(client.NetworkingV1Api)
            .createNamespacedNetworkPolicy({ namespace, body }, options);
        } else await config.makeApiClient(client.CoreV1Api).createNamespacedConfigMap({ namespace, body }, options);
      } catch (error) {
        if (statusOf(error) !== 409) throw error;
      }
    });
  }

  /** Gives a running pod another label, without waiting for the controller. */
  async labelPod(name: string, labels: Record<string, string>, signal: AbortSignal): Promise<void> {
    await this.ask('change the network', signal, async (client, config, options) => {
      const merge = client.setHeaderOptions('Content-Type', client.PatchStrategy.MergePatch, options);
      const body = { metadata: { labels } };
      await config.makeApiClient(client.CoreV1Api).patchNamespacedPod({ name, namespace: this.namespace, body }, merge);
    });
  }
}

function metadataOf(body: object): object {
  return 'metadata' in body && body.metadata !== null && typeof body.metadata === 'object' ? body.metadata : {};
}

function withDeadline(client: KubernetesClient, signal: AbortSignal): Options {
  const observed = <T>(value: T): ReturnType<ObservableMiddleware['pre']> =>
    new client.Observable(Promise.resolve(value)) as never;
  return {
    middleware: [
      {
        pre: (request) => {
          request.setSignal(signal);
          return observed(request);
        },
        post: (response) => observed(response) as never,
      },
    ],
    middlewareMergeStrategy: 'append',
  };
}
