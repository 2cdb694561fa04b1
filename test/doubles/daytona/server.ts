import { randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { LocalProvider } from '../../../activities/sandbox/local/provider.ts';
import type { SandboxRef } from '../../../activities/sandbox/port.ts';
import { createLogger } from '../../../telemetry/logger.ts';
import { bulkDownload, bulkUpload, DaemonError, execute, preview } from './toolbox.ts';
import { type DoubleSandbox, DoubleStore, sandboxDto, snapshotDto } from './store.ts';

/** What goes wrong with the next requests that match. */
export interface Fault {
  method?: string;
  path: RegExp;
  times?: number;
  /** `drop`: no answer, nothing done. `drop_after`: done, and no answer. `hang`: never an answer. `cut`: half a file. */
  how: number | 'drop' | 'drop_after' | 'hang' | 'cut';
  message?: string;
  headers?: Record<string, string>;
}

class ApiError extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

interface Call {
  method: string;
  path: string;
  query: URLSearchParams;
  request: IncomingMessage;
  response: ServerResponse;
  cutAfterBytes: number | undefined;
}

/** Daytona's public wire format, with real sandboxes of this machine behind it. Not the vendor's service. */
export class DaytonaDouble {
  readonly apiKey = `dtn_double_${randomUUID()}`;
  readonly store: DoubleStore;
  /** `METHOD path` of each request that was answered. */
  readonly seen: string[] = [];
  private readonly rootDir = mkdtempSync(path.join(os.tmpdir(), 'longhaul-daytona-'));
  private readonly server = http.createServer((request, response) => void this.serve(request, response));
  private readonly faults: (Fault & { left: number })[] = [];
  private readonly hanging = new Set<ServerResponse>();
  private readonly previewToken = randomUUID();

  constructor() {
    const logger = createLogger('double', 'silent');
    this.store = new DoubleStore(new LocalProvider({ rootDir: this.rootDir, logger }));
  }

  async start(): Promise<this> {
    await new Promise<void>((resolve) => this.server.listen(0, '127.0.0.1', resolve));
    return this;
  }

  get origin(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  get apiUrl(): string {
    return `${this.origin}/api`;
  }

  fail(fault: Fault): void {
    this.faults.push({ ...fault, left: fault.times ?? 1 });
  }

  /** Forgets faults that did not come to pass. */
  heal(): void {
    this.faults.length = 0;
    for (const response of this.hanging) response.destroy();
    this.hanging.clear();
  }

  async close(): Promise<void> {
    this.heal();
    await this.store.close();
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
    const url = new URL(request.url ?? '/', this.origin);
    const method = request.method ?? 'GET';
    const fault = this.faultOf(method, url.pathname);
    request.on('error', () => undefined);
    if (fault?.how === 'drop') return void request.socket.destroy();
    if (fault?.how === 'hang') return void this.hanging.add(response);
    try {
      if (typeof fault?.how === 'number') throw new ApiError(fault.how, fault.message ?? 'made to fail');
      this.authenticate(request, url);
      const cutAfterBytes = fault?.how === 'cut' ? 1_000 : undefined;
      const call = { method, path: url.pathname, query: url.searchParams, request, response, cutAfterBytes };
      const answer = await this.answer(call);
      this.seen.push(`${method} ${url.pathname}`);
      if (fault?.how === 'drop_after') return void request.socket.destroy();
      if (response.headersSent) return;
      const { status, body } = answer ?? { status: 200, body: undefined };
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body ?? null));
    } catch (error) {
      this.refuse(error, url.pathname, response, fault?.headers ?? {});
      request.resume();
    }
  }

  private refuse(error: unknown, target: string, response: ServerResponse, headers: Record<string, string>): void {
    if (response.headersSent) return void response.destroy();
    const isKnown = error instanceof ApiError || error instanceof DaemonError;
    const statusCode = isKnown ? error.status : 500;
    const message = error instanceof Error ? error.message : String(error);
    const source = error instanceof DaemonError ? { source: 'DAYTONA_DAEMON', code: error.code } : {};
    const body = { path: target, timestamp: new Date().toISOString(), statusCode, message, ...source };
    response.writeHead(statusCode, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body));
  }

  private authenticate(request: IncomingMessage, url: URL): void {
    if (url.pathname.startsWith('/preview/')) {
      if (request.headers['x-daytona-preview-token'] === this.previewToken) return;
      throw new ApiError(401, 'the preview needs its token');
    }
    if (request.headers.authorization !== `Bearer ${this.apiKey}`) throw new ApiError(401, 'Invalid credentials');
  }

  private async answer(call: Call): Promise<{ status: number; body: unknown } | undefined> {
    const [area, ...rest] = call.path.split('/').slice(1).map(decodeURIComponent);
    if (area === 'toolbox') return this.toolbox(call, rest);
    if (area === 'preview') return this.preview(call, rest);
    if (area !== 'api') throw new ApiError(404, `Cannot ${call.method} ${call.path}`);
    const [resource, id, action, ...more] = rest;
    if (resource === 'snapshots') return this.snapshots(call, id);
    if (resource !== 'sandbox') throw new ApiError(404, `Cannot ${call.method} ${call.path}`);
    if (id === undefined) return call.method === 'POST' ? this.create(call) : this.list(call);
    return this.sandbox(call, this.require(id), action, more);
  }

  private require(id: string): DoubleSandbox {
    const found = this.store.find(id);
    if (found === undefined) throw new ApiError(404, `Sandbox with ID or name ${id} not found`);
    return found;
  }

  private show(sandbox: DoubleSandbox, isListed = false): { status: number; body: unknown } {
    return { status: 200, body: sandboxDto(sandbox, `${this.origin}/toolbox`, isListed) };
  }

  private async create({ request }: Call): Promise<{ status: number; body: unknown }> {
    const body = await json(request);
    const { name, snapshot } = body as { name?: string; snapshot?: string };
    if (name !== undefined && this.store.find(name) !== undefined) {
      throw new ApiError(409, `Sandbox with name ${name} already exists`);
    }
    const isForeign = snapshot?.startsWith('lh-snap-') === true && this.store.snapshotOf(snapshot) === undefined;
    if (isForeign) throw new ApiError(400, `Snapshot ${snapshot} not found`);
    if (snapshot !== undefined && ('cpu' in body || 'memory' in body || 'disk' in body)) {
      throw new ApiError(400, 'Cannot specify Sandbox resources when using a snapshot');
    }
    return this.show(this.store.create(body));
  }

  private list({ query }: Call): { status: number; body: unknown } {
    const wanted = JSON.parse(query.get('labels') ?? '{}') as Record<string, string>;
    const limit = Number(query.get('limit') ?? 100);
    const all = [...this.store.sandboxes.values()].filter(
      (each) =>
        each.state !== 'destroyed' && Object.entries(wanted).every(([name, value]) => each.labels[name] === value),
    );
    const from = Number(query.get('cursor') ?? 0);
    const items = all.slice(from, from + limit).map((each) => this.show(each, true).body);
    return { status: 200, body: { items, nextCursor: from + limit < all.length ? String(from + limit) : null } };
  }

  private async sandbox(
    call: Call,
    sandbox: DoubleSandbox,
    action: string | undefined,
    more: string[],
  ): Promise<{ status: number; body: unknown }> {
    const must = (...states: string[]): void => {
      if (!states.includes(sandbox.state)) throw new ApiError(409, `Sandbox is ${sandbox.state}: state change refused`);
    };
    switch (`${call.method} ${action ?? ''}`) {
      case 'GET ':
        return this.show(sandbox);
      case 'DELETE ':
        this.store.destroy(sandbox);
        return this.show(sandbox);
      case 'POST start':
        must('stopped', 'archived', 'paused');
        this.store.start(sandbox);
        return this.show(sandbox);
      case 'POST recover':
        if (!sandbox.recoverable) throw new ApiError(400, 'Sandbox is not recoverable');
        this.store.start(sandbox);
        return this.show(sandbox);
      case 'POST stop':
        must('started');
        this.store.stop(sandbox);
        return this.show(sandbox);
      case 'POST pause':
        must('started');
        this.store.pause(sandbox);
        return this.show(sandbox);
      case 'POST archive':
        must('stopped');
        sandbox.state = 'archived';
        return this.show(sandbox);
      case 'POST snapshot': {
        const { name } = (await json(call.request)) as { name: string };
        must('started', 'stopped');
        if (this.store.snapshotOf(name) !== undefined) throw new ApiError(409, `Snapshot ${name} already exists`);
        this.store.snapshot(sandbox, name);
        return this.show(sandbox);
      }
      case 'POST network-settings':
        sandbox.network = { ...sandbox.network, ...(await json(call.request)) };
        return this.show(sandbox);
      case 'POST ttl':
        sandbox.destroyAtMs = Date.now() + Number(more[0]) * 60_000;
        return this.show(sandbox);
      case 'PUT labels':
        sandbox.labels = ((await json(call.request)) as { labels: Record<string, string> }).labels;
        return { status: 200, body: { labels: sandbox.labels } };
      case 'GET ports':
        return {
          status: 200,
          body: {
            sandboxId: sandbox.id,
            url: `${this.origin}/preview/${sandbox.id}/${more[0]}`,
            token: this.previewToken,
          },
        };
      default:
        throw new ApiError(404, `Cannot ${call.method} ${call.path}`);
    }
  }

  private async snapshots(call: Call, id: string | undefined): Promise<{ status: number; body: unknown }> {
    if (id === undefined) {
      const page = Number(call.query.get('page') ?? 1);
      const limit = Number(call.query.get('limit') ?? 100);
      const all = [...this.store.snapshots.values()];
      const totalPages = Math.max(1, Math.ceil(all.length / limit));
      const items = all.slice((page - 1) * limit, page * limit).map(snapshotDto);
      return { status: 200, body: { items, total: all.length, page, totalPages } };
    }
    const found = this.store.snapshotOf(id);
    if (found === undefined) throw new ApiError(404, `Snapshot ${id} not found`);
    if (call.method === 'DELETE') await this.store.removeSnapshot(found);
    return { status: 200, body: call.method === 'DELETE' ? null : snapshotDto(found) };
  }

  private running(sandbox: DoubleSandbox): SandboxRef {
    if (sandbox.state === 'started' && sandbox.ref !== null) return sandbox.ref;
    throw new ApiError(400, 'bad request: sandbox is not running');
  }

  private async toolbox(
    call: Call,
    [id = '', ...rest]: string[],
  ): Promise<{ status: number; body: unknown } | undefined> {
    const ref = this.running(this.require(id));
    const { backing } = this.store;
    switch (`${call.method} /${rest.join('/')}`) {
      case 'POST /process/execute':
        return { status: 200, body: await execute(backing, ref, await json(call.request)) };
      case 'POST /files/bulk-upload':
        await bulkUpload(backing, ref, call.request);
        return { status: 200, body: null };
      case 'POST /files/bulk-download': {
        const { paths } = (await json(call.request)) as { paths: string[] };
        await bulkDownload(backing, ref, paths, call.response, call.cutAfterBytes);
        return undefined;
      }
      default:
        throw new ApiError(404, `Cannot ${call.method} ${call.path}`);
    }
  }

  private async preview(call: Call, [id = '', port = '', ...rest]: string[]): Promise<undefined> {
    call.request.url = `/${rest.join('/')}`;
    await preview(this.store.backing, this.running(this.require(id)), Number(port), call.request, call.response);
    await new Promise((resolve) => call.response.once('close', resolve));
  }
}

async function json(request: IncomingMessage): Promise<Record<string, unknown>> {
  const pieces: Buffer[] = [];
  for await (const piece of request) pieces.push(piece as Buffer);
  return JSON.parse(Buffer.concat(pieces).toString() || '{}') as Record<string, unknown>;
}
