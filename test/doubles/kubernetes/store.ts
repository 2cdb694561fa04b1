import { randomUUID } from 'node:crypto';
import { EventEmitter } from 'node:events';

export interface KubeObject {
  apiVersion?: string;
  kind?: string;
  metadata: {
    name: string;
    namespace?: string;
    uid?: string;
    resourceVersion?: string;
    creationTimestamp?: string;
    deletionTimestamp?: string;
    labels?: Record<string, string>;
    annotations?: Record<string, string>;
    ownerReferences?: { uid: string }[];
  };
  // The server takes any spec and status of a custom object.
  spec?: Record<string, unknown>;
  status?: Record<string, unknown>;
}

export interface WatchEvent {
  type: 'ADDED' | 'MODIFIED' | 'DELETED';
  resource: string;
  version: number;
  object: KubeObject;
}

/** Status object of an error, as the API server answers it. */
export class KubeError extends Error {
  readonly status: number;
  readonly reason: string;

  constructor(status: number, reason: string, message: string) {
    super(message);
    this.status = status;
    this.reason = reason;
  }
}

/** Objects by resource (`group/plural`) and name, each change with a version of its own, told to watchers in order. */
export class ObjectStore extends EventEmitter<{ change: [WatchEvent] }> {
  private readonly objects = new Map<string, Map<string, KubeObject>>();
  private readonly events: WatchEvent[] = [];
  version = 1_000;

  constructor() {
    super();
    this.setMaxListeners(0);
  }

  private of(resource: string): Map<string, KubeObject> {
    const found = this.objects.get(resource) ?? new Map<string, KubeObject>();
    this.objects.set(resource, found);
    return found;
  }

  private tell(type: WatchEvent['type'], resource: string, object: KubeObject): KubeObject {
    this.version += 1;
    object.metadata.resourceVersion = String(this.version);
    const event = { type, resource, version: this.version, object: structuredClone(object) };
    this.events.push(event);
    this.emit('change', event);
    return structuredClone(object);
  }

  create(resource: string, body: KubeObject): KubeObject {
    const { name } = body.metadata;
    if (!/^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/.test(name)) {
      throw new KubeError(422, 'Invalid', `${resource} "${name}" is invalid: metadata.name`);
    }
    for (const value of Object.values(body.metadata.labels ?? {})) {
      if (!/^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$/.test(value)) {
        throw new KubeError(422, 'Invalid', `${resource} "${name}" is invalid: metadata.labels: "${value}"`);
      }
    }
    if (this.of(resource).has(name)) throw new KubeError(409, 'AlreadyExists', `${resource} "${name}" already exists`);
    const object = structuredClone(body);
    object.metadata.uid = randomUUID();
    object.metadata.creationTimestamp = new Date().toISOString().replace(/\.\d+Z$/, 'Z');
    this.of(resource).set(name, object);
    return this.tell('ADDED', resource, object);
  }

  find(resource: string, name: string): KubeObject | undefined {
    const found = this.of(resource).get(name);
    return found === undefined ? undefined : structuredClone(found);
  }

  get(resource: string, name: string): KubeObject {
    const found = this.find(resource, name);
    if (found === undefined) throw new KubeError(404, 'NotFound', `${resource} "${name}" not found`);
    return found;
  }

  list(resource: string): KubeObject[] {
    return [...this.of(resource).values()].map((each) => structuredClone(each));
  }

  /** JSON merge patch; a resource version in it must be the current one. */
  patch(resource: string, name: string, patch: Record<string, unknown>): KubeObject {
    const object = this.of(resource).get(name);
    if (object === undefined) throw new KubeError(404, 'NotFound', `${resource} "${name}" not found`);
    const wanted = (patch['metadata'] as { resourceVersion?: string } | undefined)?.resourceVersion;
    if (wanted !== undefined && wanted !== object.metadata.resourceVersion) {
      throw new KubeError(
        409,
        'Conflict',
        'the object has been modified; please apply your changes to the latest version',
      );
    }
    merge(object as unknown as Record<string, unknown>, patch);
    return this.tell('MODIFIED', resource, object);
  }

  /** What the controllers do: a change of the newest, if it is there still. */
  change(resource: string, name: string, change: (object: KubeObject) => void): void {
    const object = this.of(resource).get(name);
    if (object === undefined) return;
    change(object);
    this.tell('MODIFIED', resource, object);
  }

  remove(resource: string, name: string): KubeObject | undefined {
    const object = this.of(resource).get(name);
    if (object === undefined) return undefined;
    this.of(resource).delete(name);
    return this.tell('DELETED', resource, object);
  }

  eventsSince(version: number): WatchEvent[] {
    return this.events.filter((each) => each.version > version);
  }
}

function merge(target: Record<string, unknown>, patch: Record<string, unknown>): void {
  for (const [key, value] of Object.entries(patch)) {
    const known = target[key];
    if (value === null) delete target[key];
    else if (typeof value !== 'object' || Array.isArray(value)) target[key] = value;
    else {
      const below = typeof known === 'object' && known !== null && !Array.isArray(known) ? known : {};
      target[key] = below;
      merge(below as Record<string, unknown>, value as Record<string, unknown>);
    }
  }
}

/** `a=b,c!=d,e` */
export function matches(labels: Record<string, string> | undefined, selector: string): boolean {
  return selector
    .split(',')
    .filter((part) => part !== '')
    .every((part) => {
      const [, name = '', operator, value = ''] = /^([^=!]+)(==?|!=)?(.*)$/.exec(part.trim()) ?? [];
      if (operator === undefined) return labels !== undefined && name in labels;
      return (labels?.[name] === value) === (operator !== '!=');
    });
}
