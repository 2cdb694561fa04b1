import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findSessionToken } from '../../db/queries/session-tokens.ts';
import { findVirtualKey } from '../../db/queries/virtual-keys.ts';
import type { Allowed, HeaderList, PolicyEngine } from '../../egress/decision.ts';
import { readServices } from '../../egress/services/config.ts';
import { Dialler } from '../../egress/upstream/dialler.ts';
import { openOutbound } from '../../egress/upstream/outbound.ts';
import { UpstreamPool } from '../../egress/upstream/pool.ts';
import { createSecureContext } from 'node:tls';
import type { PolicyBed } from './support.ts';
import { head, NEVER, policyBed } from './support.ts';

const GATEWAY = 'http://gateway.longhaul.internal';
const services = readServices({
  LONGHAUL_EGRESS_SERVICES: 'gateway=http://127.0.0.1:4848/base mcp=http://127.0.0.1:4849',
});

let bed: PolicyBed;
beforeAll(async () => {
  bed = await policyBed({ services });
}, 120_000);
afterAll(() => bed.close());

/** A session of an agent whose harness runs where `placement` says. */
async function harnessSession(placement: 'inline' | 'sandbox'): Promise<string> {
  const sessionId = await bed.session(undefined);
  await bed.pool.query(`UPDATE sessions SET agent = agent || $2 WHERE id = $1`, [
    sessionId,
    { harness: 'acp', placement, harness_agent: 'gemini' },
  ]);
  return sessionId;
}

async function allowed(engine: PolicyEngine, url: string, headers: HeaderList = []): Promise<Allowed> {
  const decision = await engine.request(head(url, { method: 'POST', headers }), NEVER);
  if (decision.action !== 'allow') throw new Error(decision.message);
  return decision;
}

function isService(_address: string, to: { via?: object }): boolean {
  return to.via !== undefined;
}

function keyOf({ head: sent }: Allowed): string {
  return sent.headers.find(([name]) => name === 'authorization')?.[1].replace('Bearer ', '') ?? '';
}

describe('services of the product inside a sandbox', () => {
  it('are reached under the key of the session, whatever the sandbox sent for one', async () => {
    const sessionId = await harnessSession('sandbox');
    const engine = await bed.open(sessionId);
    const sent: HeaderList = [
      ['authorization', 'Bearer of-another-session'],
      ['x-api-key', 'placeholder'],
      ['x-goog-api-key', 'placeholder'],
      ['content-type', 'application/json'],
    ];
    const first = await allowed(engine, `${GATEWAY}/v1/chat/completions?key=placeholder&alt=sse`, sent);
    expect(first.head.target.via).toEqual({ host: '127.0.0.1', port: 4848, isTls: false });
    expect(first.head).toMatchObject({ path: '/base/v1/chat/completions', query: 'alt=sse' });
    expect(first.head.headers.map(([name]) => name)).toEqual(['host', 'content-type', 'authorization']);
    const row = await findVirtualKey(bed.pool, keyOf(first));
    expect(row).toMatchObject({ attribution: { sessionId }, followsTurn: true });
    // One key for the life of the session here, and none of it for anybody else.
    expect(keyOf(await allowed(engine, `${GATEWAY}/v1/messages`))).toBe(keyOf(first));
    const other = await bed.open(await harnessSession('sandbox'));
    expect(keyOf(await allowed(other, `${GATEWAY}/v1/messages`))).not.toBe(keyOf(first));
    const mcp = await allowed(engine, 'http://mcp.longhaul.internal/mcp');
    expect(await findSessionToken(bed.pool, keyOf(mcp), 'mcp')).toMatchObject({ sessionId });
    for (const decision of [first, mcp]) decision.record({ status: 200, bytesIn: 1, bytesOut: 1, durationMs: 1 });
    await bed.restart();
    const audit = await bed.pool.query<{ rule: string; host: string; state: string }>(
      'SELECT rule, host, state FROM egress_requests WHERE session_id = $1 ORDER BY seq',
      [sessionId],
    );
    expect(audit.rows[0]).toEqual({ rule: 'service: gateway', host: 'gateway.longhaul.internal', state: 'completed' });
    expect(audit.rows.at(-1)).toMatchObject({ rule: 'service: mcp', state: 'completed' });
    const next = await bed.open(sessionId);
    expect(keyOf(await allowed(next, `${GATEWAY}/v1/messages`))).not.toBe(keyOf(first));
  });

  it.each([
    ['scripted calls', 'sandbox', `${GATEWAY}/scripted/calls`],
    ['the API', 'sandbox', `${GATEWAY}/v1/sessions`],
    ['a way around the paths', 'sandbox', `${GATEWAY}/v1/models/..%2f..%2fsessions`],
    ['more of the API at the tools', 'sandbox', 'http://mcp.longhaul.internal/v1/sessions'],
    ['another port', 'sandbox', `${GATEWAY}:8080/v1/messages`],
    ['TLS', 'sandbox', 'https://gateway.longhaul.internal/v1/messages'],
    ['a harness beside the worker', 'inline', `${GATEWAY}/v1/messages`],
  ] as const)('are not there for %s', async (_name, placement, url) => {
    const engine = await bed.open(await harnessSession(placement));
    const decision = await engine.request(head(url, { method: 'POST' }), NEVER);
    expect(decision).toMatchObject({ action: 'deny', status: 403, code: 'host_not_allowed' });
  });

  it('are not there for a session without a harness, also when it may reach every host', async () => {
    const engine = await bed.open(await bed.session({ type: 'unrestricted' }));
    const decision = await engine.request(head(`${GATEWAY}/v1/messages`, { method: 'POST' }), NEVER);
    expect(decision).toMatchObject({ action: 'deny', code: 'host_not_allowed' });
    // Where they listen is no way in either.
    expect(engine.addressAllowed('127.0.0.1', { host: '127.0.0.1', port: 4848, isTls: false })).toBe(false);
  });

  it('are dialled where they listen, although that address is nobody else’s to reach', async () => {
    const seen: IncomingMessage[] = [];
    const server = createServer((req, res) => {
      seen.push(req);
      res.end('here');
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    const target = { host: 'gateway.longhaul.internal', port: 80, isTls: false };
    const dialler = new Dialler({
      resolver: { resolve: (host: string) => Promise.resolve([host]) } as never,
      connectMs: 60_000,
      authorities: createSecureContext(),
      // Nothing listens there: a request that went to it would fail.
      parentProxy: { host: '127.0.0.1', port: 9, isTls: false, authorization: null },
    });
    const pool = new UpstreamPool({ dialler, isAllowed: isService, maxSockets: 4, onFull: () => undefined });
    try {
      const via = { host: '127.0.0.1', port, isTls: false };
      const request = { ...head(`${GATEWAY}/v1/models`), target: { ...target, via } };
      const outbound = await openOutbound(pool, request, { type: 'none' }, false);
      outbound.body.end();
      expect((await outbound.answer).status).toBe(200);
      expect(seen[0]?.headers.host).toBe(`127.0.0.1:${port}`);
      expect(seen[0]?.url).toBe('/v1/models');
    } finally {
      pool.close();
      server.closeAllConnections();
      server.close();
    }
  });

  it('need addresses that are addresses', () => {
    for (const value of ['gateway', 'gateway=nowhere', 'other=http://127.0.0.1:1', 'mcp=ftp://127.0.0.1']) {
      expect(() => readServices({ LONGHAUL_EGRESS_SERVICES: value })).toThrow('LONGHAUL_EGRESS_SERVICES');
    }
    expect(readServices({}).size).toBe(0);
  });
});
