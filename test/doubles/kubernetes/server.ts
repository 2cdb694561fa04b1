import { randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import type { Duplex } from 'node:stream';
import { hostScripts } from '../../../activities/sandbox/local/enter.ts';
import { markerOf } from '../../../activities/sandbox/local/holder.ts';
import { LocalProvider } from '../../../activities/sandbox/local/provider.ts';
import { pathsOf, readRecord } from '../../../activities/sandbox/local/record.ts';
import type { SandboxRef } from '../../../activities/sandbox/port.ts';
import { createLogger } from '../../../telemetry/logger.ts';
import { CLAIMS, Controller, PODS, SANDBOXES } from './controller.ts';
import { serveExec, servePort } from './streams.ts';
import type { KubeObject, WatchEvent } from './store.ts';
import { KubeError, matches, ObjectStore } from './store.ts';
import { accept } from './web-socket.ts';

export interface Fault {
  method?: string;
  path: RegExp;
  times?: number;
  /** A status; `drop`: no answer and nothing done; `drop_after`: done, and no answer; `hang`: never an answer. */
  how: number | 'drop' | 'drop_after' | 'hang';
  message?: string;
  headers?: Record<string, string>;
}

interface Address {
  resource: string;
  namespace: string;
  name: string | undefined;
  action: string | undefined;
}

const ADDRESS = /^\/api(?:s\/([^/]+))?\/[^/]+\/namespaces\/([^/]+)\/([^/]+)(?:\/([^/]+))?(?:\/([^/]+))?$/;
const MERGE = 'application/merge-patch+json';

/**
 * A double of a cluster's API with the agent-sandbox resources: objects, conflicts, selectors, watches, exec and port
 * forwarding over WebSockets. Pods are sandboxes of this machine. Not a cluster: nothing schedules, no policy is enforced.
 */
export class KubernetesDouble {
  readonly store = new ObjectStore();
  readonly controller: Controller;
  readonly namespace = 'longhaul';
  readonly kubeconfigFile: string;
  /** Requests of the pods' exec, as they came. */
  readonly protocols: string[] = [];
  private readonly token = randomUUID();
  private readonly rootDir = mkdtempSync(path.join(os.tmpdir(), 'longhaul-kubernetes-'));
  private readonly server = http.createServer((request, response) => void this.serve(request, response));
  private readonly faults: (Fault & { left: number })[] = [];
  private readonly hanging = new Set<ServerResponse>();
  private readonly watches = new Map<ServerResponse, string>();
  private readonly backing: LocalProvider;

  constructor() {
    const logger = createLogger('double', 'silent');
    this.backing = new LocalProvider({ rootDir: path.join(this.rootDir, 'pods'), logger });
    this.controller = new Controller(this.store, this.backing);
    this.kubeconfigFile = path.join(this.rootDir, 'kubeconfig');
    this.server.on('upgrade', (request: IncomingMessage, socket: Duplex) => void this.upgrade(request, socket));
  }

  async start(): Promise<this> {
    await new Promise<void>((resolve) => this.server.listen(0, '127.0.0.1', resolve));
    this.writeKubeconfig(this.kubeconfigFile, this.token);
    return this;
  }

  /** JSON is YAML. */
  writeKubeconfig(file: string, token: string): void {
    const server = `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
    const config = {
      apiVersion: 'v1',
      kind: 'Config',
      clusters: [{ name: 'double', cluster: { server, 'insecure-skip-tls-verify': true } }],
      users: [{ name: 'worker', user: { token } }],
      contexts: [{ name: 'double', context: { cluster: 'double', user: 'worker', namespace: this.namespace } }],
      'current-context': 'double',
    };
    writeFileSync(file, JSON.stringify(config), { mode: 0o600 });
  }

  fail(fault: Fault): void {
    this.faults.push({ ...fault, left: fault.times ?? 1 });
  }

  /** Requests that will never be answered. */
  get unanswered(): number {
    return this.hanging.size;
  }

  /** Whether somebody follows what becomes of the object of this name. */
  isWatched(name: string): boolean {
    return [...this.watches.values()].includes(name);
  }

  heal(): void {
    this.faults.length = 0;
    for (const response of this.hanging) response.destroy();
    this.hanging.clear();
  }

  async close(): Promise<void> {
    this.heal();
    await this.controller.close();
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
    rmSync(this.rootDir, { recursive: true, force: true });
  }

  private faultOf(method: string, target: string): Fault | undefined {
    const found = this.faults.find(
      (each) => each.left > 0 && (each.method ?? method) === method && each.path.test(target),
    );
    if (found !== undefined) found.left -= 1;
    return found;
  }

  private async serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', 'http://double');
    const method = request.method ?? 'GET';
    const fault = this.faultOf(method, url.pathname);
    if (fault?.how === 'drop') return void request.socket.destroy();
    if (fault?.how === 'hang') return void this.hanging.add(response);
    try {
      if (typeof fault?.how === 'number') throw new KubeError(fault.how, 'Made', fault.message ?? 'made to fail');
      const address = this.address(request, url);
      if (method === 'GET' && url.searchParams.get('watch') === 'true') return this.watch(address, url, response);
      const body = await this.answer(method, address, url, request);
      if (fault?.how === 'drop_after') return void request.socket.destroy();
      response.writeHead(method === 'POST' ? 201 : 200, { 'content-type': 'application/json' });
      response.end(JSON.stringify(body));
    } catch (error) {
      const known = error instanceof KubeError ? error : new KubeError(500, 'InternalError', String(error));
      const { status: code, reason, message } = known;
      response.writeHead(code, { 'content-type': 'application/json', ...fault?.headers });
      response.end(JSON.stringify({ kind: 'Status', apiVersion: 'v1', status: 'Failure', message, reason, code }));
    }
  }

  private address(request: IncomingMessage, url: URL): Address {
    if (request.headers.authorization !== `Bearer ${this.token}`)
      throw new KubeError(401, 'Unauthorized', 'Unauthorized');
    const [, group = '', namespace, plural, name, action] = ADDRESS.exec(url.pathname) ?? [];
    if (namespace === undefined)
      throw new KubeError(404, 'NotFound', 'the server could not find the requested resource');
    if (namespace !== this.namespace) {
      throw new KubeError(403, 'Forbidden', `cannot use resource "${plural}" in the namespace "${namespace}"`);
    }
    return { resource: `${group}/${plural}`, namespace, name, action };
  }

  private async answer(method: string, address: Address, url: URL, request: IncomingMessage): Promise<unknown> {
    const { resource, name } = address;
    this.expire();
    if (method === 'GET') return name === undefined ? this.list(resource, url) : this.store.get(resource, name);
    if (method === 'DELETE' && name !== undefined) return this.controller.remove(resource, name);
    const body = (await json(request)) as unknown as KubeObject;
    if (method === 'POST' && name === undefined) return this.store.create(resource, body);
    if (method === 'PATCH' && name !== undefined) {
      const type = request.headers['content-type'] ?? '';
      if (!type.startsWith(MERGE)) throw new KubeError(415, 'UnsupportedMediaType', `the double knows ${MERGE} only`);
      return this.store.patch(resource, name, body as unknown as Record<string, unknown>);
    }
    throw new KubeError(405, 'MethodNotAllowed', `${method} is not allowed`);
  }

  /** What the controllers do at a time: here whenever somebody asks. */
  private expire(): void {
    for (const resource of [SANDBOXES, CLAIMS]) {
      for (const { metadata, spec } of this.store.list(resource)) {
        const lifecycle = (spec?.['lifecycle'] ?? spec ?? {}) as { shutdownTime?: string; shutdownPolicy?: string };
        const isOver = Date.parse(lifecycle.shutdownTime ?? '') < Date.now();
        if (isOver && lifecycle.shutdownPolicy === 'Delete' && metadata.deletionTimestamp === undefined) {
          this.controller.remove(resource, metadata.name);
        }
      }
    }
  }

  private list(resource: string, url: URL): unknown {
    const selector = url.searchParams.get('labelSelector') ?? '';
    const all = this.store.list(resource).filter((each) => matches(each.metadata.labels, selector));
    const limit = Number(url.searchParams.get('limit') ?? 0) || all.length;
    const from = Number(url.searchParams.get('continue') ?? 0);
    const rest = from + limit < all.length ? { continue: String(from + limit) } : {};
    return {
      kind: 'List',
      metadata: { resourceVersion: String(this.store.version), ...rest },
      items: all.slice(from, from + limit),
    };
  }

  private watch({ resource }: Address, url: URL, response: ServerResponse): void {
    const { searchParams } = url;
    const [, name] = /^metadata\.name=(.*)$/.exec(searchParams.get('fieldSelector') ?? '') ?? [];
    const selector = searchParams.get('labelSelector') ?? '';
    response.writeHead(200, { 'content-type': 'application/json' });
    response.flushHeaders();
    const tell = (event: WatchEvent): void => {
      const { metadata } = event.object;
      if (event.resource !== resource || (name !== undefined && metadata.name !== name)) return;
      if (!matches(metadata.labels, selector)) return;
      response.write(`${JSON.stringify({ type: event.type, object: event.object })}\n`);
    };
    const since = searchParams.get('resourceVersion');
    for (const event of since === null ? [] : this.store.eventsSince(Number(since))) tell(event);
    this.store.on('change', tell);
    this.watches.set(response, name ?? '');
    const timer = setTimeout(() => response.end(), Number(searchParams.get('timeoutSeconds') ?? 60) * 1_000);
    response.once('close', () => {
      clearTimeout(timer);
      this.watches.delete(response);
      this.store.off('change', tell);
    });
  }

  private async upgrade(request: IncomingMessage, socket: Duplex): Promise<void> {
    socket.on('error', () => undefined);
    const url = new URL(request.url ?? '/', 'http://double');
    const fault = this.faultOf('GET', url.pathname);
    try {
      if (fault?.how === 'drop') throw new KubeError(0, '', '');
      if (typeof fault?.how === 'number') throw new KubeError(fault.how, 'Made', 'made to fail');
      const { resource, name = '', action } = this.address(request, url);
      const ref = resource === PODS ? this.controller.refOf(name) : undefined;
      if (ref === undefined) throw new KubeError(404, 'NotFound', `pods "${name}" not found`);
      if (action === 'exec') await this.exec(request, socket, url, ref, fault);
      else if (action === 'portforward') {
        const opened = accept(request, socket, ['v4.channel.k8s.io', 'portforward.k8s.io']);
        await servePort(opened, this.backing, ref, Number(url.searchParams.get('ports')));
      } else throw new KubeError(404, 'NotFound', 'the server could not find the requested resource');
    } catch (error) {
      const status = error instanceof KubeError ? error.status : 500;
      if (status === 0) socket.destroy();
      else socket.end(`HTTP/1.1 ${status} Refused\r\nconnection: close\r\ncontent-length: 0\r\n\r\n`);
    }
  }

  private async exec(
    request: IncomingMessage,
    socket: Duplex,
    url: URL,
    ref: SandboxRef,
    fault: Fault | undefined,
  ): Promise<void> {
    const inside = this.commandInside(ref, url.searchParams.getAll('command'));
    this.protocols.push(request.headers['sec-websocket-protocol'] ?? '');
    const opened = accept(request, socket, ['v5.channel.k8s.io']);
    // The command runs to its end, and nobody hears of it.
    if (fault?.how === 'drop_after') opened.send = () => true;
    await serveExec(opened, inside, url.searchParams.get('stdin') === 'true');
  }

  /** The host's command that runs one inside, its streams being pipes. */
  private commandInside(ref: SandboxRef, argv: string[]): string[] {
    const rootDir = path.join(this.rootDir, 'pods');
    const record = readRecord(rootDir, ref.id);
    if (record?.holder === undefined || record.holder === null)
      throw new KubeError(500, 'InternalError', 'no container');
    const { pid, startTime } = record.holder;
    const identity = [markerOf(rootDir, record.id), String(record.uid), String(pid), startTime];
    return ['perl', '-e', hostScripts().run, '--', ...identity, pathsOf(rootDir, ref.id).filter, ...argv];
  }
}

async function json(request: IncomingMessage): Promise<Record<string, unknown>> {
  const pieces: Buffer[] = [];
  for await (const piece of request) pieces.push(piece as Buffer);
  return JSON.parse(Buffer.concat(pieces).toString() || '{}') as Record<string, unknown>;
}
