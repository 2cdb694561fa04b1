import { buffer } from 'node:stream/consumers';
import type { Transform } from 'node:stream';
import { Readable } from 'node:stream';
import { brotliCompressSync, deflateRawSync, deflateSync, gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LIMITS } from '../../contracts/limits.ts';
import { createPool } from '../../db/pool.ts';
import { deleteOldEgressRequests, deleteOldSecurityEvents } from '../../db/queries/retention.ts';
import type { AuditStart } from '../../egress/audit/writer.ts';
import { AuditWriter } from '../../egress/audit/writer.ts';
import type { Allowed, Denied, EgressTarget, HeaderList, PolicyEngine, RequestHead } from '../../egress/decision.ts';
import { createLogger } from '../../telemetry/logger.ts';
import type { PolicyBed } from './support.ts';
import { head, NEVER, policyBed } from './support.ts';

let bed: PolicyBed;
beforeAll(async () => {
  bed = await policyBed({ packageHosts: ['registry.test'] });
}, 120_000);
afterAll(() => bed.close());

const OUTCOME = { status: 200, bytesIn: 10, bytesOut: 20, durationMs: 1.4 };

async function allowed(engine: PolicyEngine, request: RequestHead): Promise<Allowed> {
  const decision = await engine.request(request, NEVER);
  if (decision.action !== 'allow') throw new Error(`${decision.code}: ${decision.message}`);
  return decision;
}

async function denied(engine: PolicyEngine, request: RequestHead): Promise<Denied> {
  const decision = await engine.request(request, NEVER);
  if (decision.action === 'allow') throw new Error('it was allowed');
  return decision;
}

const valueOf = (headers: HeaderList, name: string): string | undefined =>
  headers.find(([known]) => known === name)?.[1];

interface Audited {
  seq: number;
  state: string;
  decision: string;
  code: string | null;
  rule: string;
  path: string | null;
  status: number | null;
  credentials: string[];
}

/** All rows of a session once everything is written. */
async function audit(sessionId: string): Promise<Audited[]> {
  await bed.restart();
  const result = await bed.pool.query<Audited>(
    `SELECT seq, state, decision, code, rule, path, status, credentials FROM egress_requests WHERE session_id = $1
     ORDER BY created_at, id`,
    [sessionId],
  );
  return result.rows;
}

async function incidents(sessionId: string): Promise<{ kind: string; message: string; host: string }[]> {
  const result = await bed.pool.query<{ kind: string; message: string; host: string }>(
    'SELECT kind, message, host FROM security_events WHERE session_id = $1 ORDER BY created_at',
    [sessionId],
  );
  return result.rows;
}

const pieces = (text: string, size: number): Buffer[] => {
  const bytes = Buffer.from(text);
  return Array.from({ length: Math.ceil(bytes.length / size) }, (_, at) => bytes.subarray(at * size, (at + 1) * size));
};
const through = (factory: () => Transform, parts: Buffer[]): Promise<Buffer> =>
  buffer(Readable.from(parts).pipe(factory()));
const to = (host: string): EgressTarget => ({ host, port: 443, isTls: true });
const basicOf = (secret: string): string => Buffer.from(`user:${secret}`).toString('base64');

const echo = (secret: string): string =>
  JSON.stringify({ x: secret, y: basicOf(secret), z: encodeURIComponent(`/${secret}/`) });

describe('hosts', () => {
  it('nothing is allowed unless it is said', async () => {
    const sessionId = await bed.session(undefined);
    const engine = await bed.open(sessionId);
    const refused = await denied(engine, head('https://example.com/a?token=1'));
    expect(refused).toMatchObject({ status: 403, code: 'host_not_allowed' });
    expect(refused.message).toContain('networking.allowed_hosts');
    expect(await audit(sessionId)).toMatchObject([
      { seq: 1, state: 'denied', decision: 'deny', code: 'host_not_allowed', path: '/a', status: 403 },
    ]);
  });

  it('allowed hosts, package managers and the gateway are reached; unrestricted reaches all', async () => {
    const limited = await bed.open(
      await bed.session({ type: 'limited', allowed_hosts: ['a.test', '*.b.test'], allow_package_managers: true }),
    );
    for (const url of [
      'https://a.test/',
      'http://x.b.test:8080/',
      'https://registry.test/@scope%2fname',
      'http://127.0.0.1:4000/v1',
    ]) {
      await allowed(limited, head(url));
    }
    for (const url of ['https://b.test/', 'https://c.test/', 'https://127.0.0.1/']) await denied(limited, head(url));
    const open = await bed.open(await bed.session({ type: 'unrestricted' }));
    await allowed(open, head('https://anywhere.test/'));
  });

  it('the most specific rule decides, and the stricter of two alike', async () => {
    const engine = await bed.open(
      await bed.session({
        type: 'limited',
        allowed_hosts: ['*.api.test'],
        rules: [
          { host: 'v.api.test', paths: ['/admin/**'], action: 'deny' },
          { host: 'v.api.test', methods: ['DELETE'], action: 'deny' },
          { host: 'only.test', methods: ['GET'], paths: ['/v1/*/read'], action: 'allow' },
        ],
      }),
    );
    await allowed(engine, head('https://v.api.test/users'));
    expect(await denied(engine, head('https://v.api.test/admin/users'))).toMatchObject({ code: 'rule_denied' });
    await denied(engine, head('https://v.api.test/users', { method: 'DELETE' }));
    await allowed(engine, head('https://only.test/v1/x/read'));
    await denied(engine, head('https://only.test/v1/x/y/read'));
    await denied(engine, head('https://only.test/v1/x/read', { method: 'POST' }));
  });

  it.each([
    '/admin%2fx',
    '/x/../admin/a',
    '/x/%2e%2e/admin',
    '/x\\..\\admin',
    '/%2561dmin',
    '//admin/a',
    '/a/..;/admin',
    '/%ff',
  ])('refuses the path %s where a rule looks at paths, and only there', async (path) => {
    const sessionId = await bed.session({
      type: 'limited',
      allowed_hosts: ['a.test', 'b.test'],
      rules: [{ host: 'a.test', paths: ['/admin/**'], action: 'deny' }],
    });
    const engine = await bed.open(sessionId);
    expect(await denied(engine, head(`https://a.test${path}`))).toMatchObject({ code: 'path_ambiguous' });
    await allowed(engine, head(`https://b.test${path}`));
    expect(await incidents(sessionId)).toMatchObject([{ kind: 'path_ambiguous', host: 'a.test' }]);
  });

  it('a rule of the team holds before those of the environment', async () => {
    await bed.pool.query(
      `INSERT INTO egress_policies (team_id, policy, updated_by) VALUES ('team-strict', $1, 'ada')`,
      [{ rules: [{ host: '*.bad.test', methods: null, paths: null, action: 'deny' }] }],
    );
    const engine = await bed.open(await bed.session({ type: 'unrestricted' }, 'team-strict'));
    expect(await denied(engine, head('https://x.bad.test/'))).toMatchObject({ code: 'rule_denied' });
    await allowed(engine, head('https://good.test/'));
  });

  it('a change of the rules of a team is told to the data plane, and nothing else is', async () => {
    const told: string[] = [];
    bed.policies.onRulesChanged((sessionId) => told.push(sessionId));
    const sessionId = await bed.session({ type: 'unrestricted' }, 'team-changing');
    const engine = await bed.open(sessionId);
    await allowed(engine, head('https://late.test/'));
    await bed.policies.refresh(sessionId);
    expect(told).toEqual([]);
    await bed.pool.query(
      `INSERT INTO egress_policies (team_id, policy, updated_by) VALUES ('team-changing', $1, 'ada')`,
      [{ rules: [{ host: 'late.test', methods: null, paths: null, action: 'deny' }] }],
    );
    await bed.policies.refresh(sessionId);
    expect(told).toEqual([sessionId]);
    expect(await denied(engine, head('https://late.test/'))).toMatchObject({ code: 'rule_denied' });
  });

  it('private addresses are opened by network, address or host', async () => {
    const engine = await bed.open(
      await bed.session({ type: 'limited', private_addresses: ['10.1.0.0/16', 'fd00::1', 'db.internal'] }),
    );
    expect(engine.addressAllowed('10.1.2.3', to('x.test'))).toBe(true);
    expect(engine.addressAllowed('fd00::1', to('x.test'))).toBe(true);
    expect(engine.addressAllowed('192.168.0.1', to('db.internal'))).toBe(true);
    expect(engine.addressAllowed('10.2.0.1', to('x.test'))).toBe(false);
    expect(engine.addressAllowed('169.254.169.254', to('x.test'))).toBe(false);
  });

  it('a tunnel that is not read is decided by host alone and recorded', async () => {
    const sessionId = await bed.session({
      type: 'limited',
      tls_passthrough_hosts: ['pinned.test'],
      rules: [{ host: 'pinned.test', paths: ['/x'], action: 'deny' }],
    });
    const engine = await bed.open(sessionId);
    const target = { host: 'pinned.test', port: 443, isTls: true };
    const decision = await engine.connect(target, NEVER);
    if (decision.action !== 'passthrough') throw new Error(decision.action);
    decision.record(OUTCOME);
    expect((await engine.connect({ ...target, host: '1.1.1.1' }, NEVER)).action).toBe('deny');
    expect((await engine.connect({ ...target, host: 'other.test' }, NEVER)).action).toBe('terminate');
    expect(await audit(sessionId)).toMatchObject([
      { seq: 1, state: 'completed', rule: 'tls_passthrough_hosts: pinned.test', path: null },
      { seq: 2, state: 'denied', code: 'host_not_allowed' },
    ]);
  });

  it('counts the requests of a session, over restarts too', async () => {
    const sessionId = await bed.session({ type: 'limited', allowed_hosts: ['a.test'], max_requests: 2 });
    const engine = await bed.open(sessionId);
    for (let count = 0; count < 2; count += 1) (await allowed(engine, head('https://a.test/'))).record(OUTCOME);
    expect(await denied(engine, head('https://a.test/'))).toMatchObject({ status: 429, code: 'too_many_requests' });
    await bed.restart();
    expect(await denied(await bed.open(sessionId), head('https://a.test/'))).toMatchObject({ status: 429 });
  });

  it('a session that has ended reaches nothing', async () => {
    const sessionId = await bed.session({ type: 'unrestricted' });
    const engine = await bed.open(sessionId);
    await bed.policies.revoke(sessionId);
    expect(await denied(engine, head('https://a.test/'))).toMatchObject({ code: 'session_over' });
  });
});

describe('credentials in requests', () => {
  it('are put into headers, Basic and queries of bound hosts, and nowhere else', async () => {
    const sessionId = await bed.session({ type: 'limited', allowed_hosts: ['*.github.test', 'evil.test'] });
    const token = await bed.credential(sessionId, {
      hosts: ['*.github.test'],
      locations: ['header', 'basic', 'query'],
      value: 'canary-ä/+ b',
    });
    const engine = await bed.open(sessionId);
    const basic = Buffer.from(`x-access-token:${token.placeholder}`).toString('base64');
    const { head: sent } = await allowed(
      engine,
      head(`https://api.github.test/a?q=1&t=x${token.placeholder}&sig=%2f%2F`, {
        headers: [
          ['authorization', `Basic ${basic}`],
          ['x-token', `token ${token.placeholder}`],
          ['accept', '*/*'],
        ],
      }),
    );
    const inBasic = Buffer.from(valueOf(sent.headers, 'authorization')!.slice(6), 'base64').toString();
    expect(inBasic).toBe('x-access-token:canary-ä/+ b');
    expect(Buffer.from(valueOf(sent.headers, 'x-token')!, 'latin1').toString()).toBe('token canary-ä/+ b');
    expect(sent.query).toBe(`q=1&t=x${encodeURIComponent('canary-ä/+ b')}&sig=%2f%2F`);
    const before = await incidents(sessionId);
    expect(before).toEqual([]);

    for (const request of [
      head('https://evil.test/', { headers: [['x', token.placeholder]] }),
      head('https://evil.test/', { headers: [['authorization', `Basic ${basic}`]] }),
      head(`https://evil.test/?a=${token.placeholder}`),
      head(`https://evil.test/?a=%67hp_${token.placeholder.slice(4)}`),
      head(`https://nowhere.test/${token.placeholder}`),
      head(`https://api.github.test/${token.placeholder}`),
    ]) {
      expect(await denied(engine, request)).toMatchObject({ status: 403, code: 'placeholder_misused' });
    }
    expect((await incidents(sessionId)).map(({ kind }) => kind)).toEqual(Array(6).fill('placeholder_misused'));
    const logged = await bed.pool.query(
      `SELECT payload FROM events WHERE session_id = $1 AND type = 'session.security_event'`,
      [sessionId],
    );
    expect(logged.rowCount).toBe(6);
    const rows = await audit(sessionId);
    expect(rows[0]).toMatchObject({ state: 'started', decision: 'allow', credentials: ['GITHUB_TOKEN'] });
    expect(rows.slice(1).every((row) => row.state === 'denied')).toBe(true);
    expect(JSON.stringify([rows, logged.rows])).not.toContain('canary-');
  });

  it('only with the methods, paths, header and encryption they are for', async () => {
    const sessionId = await bed.session({ type: 'limited', allowed_hosts: ['a.test'] });
    const { placeholder } = await bed.credential(sessionId, {
      hosts: ['a.test'],
      methods: ['GET'],
      paths: ['/v1/*'],
      headerName: 'X-Api-Key',
      locations: ['header'],
    });
    const engine = await bed.open(sessionId);
    const headers: HeaderList = [['x-api-key', placeholder]];
    await allowed(engine, head('https://a.test/v1/x', { headers }));
    for (const request of [
      head('https://a.test/v1/x', { headers, method: 'POST' }),
      head('https://a.test/v2/x', { headers }),
      head('https://a.test/v1/../v2', { headers }),
      head('https://a.test/v1/x', { headers: [['x-other', placeholder]] }),
      head('https://a.test/v1/x', {
        headers: [['authorization', `Basic ${Buffer.from(`a:${placeholder}`).toString('base64')}`]],
      }),
      head(`https://a.test/v1/x?k=${placeholder}`),
      head('http://a.test/v1/x', { headers }),
    ]) {
      expect(await denied(engine, request)).toMatchObject({ code: 'placeholder_misused' });
    }
  });

  it('a placeholder of another session, a revoked one and a guess are refused and told', async () => {
    const mine = await bed.session({ type: 'unrestricted' });
    const other = await bed.session({ type: 'unrestricted' });
    const theirs = await bed.credential(other, { hosts: ['a.test'], placeholder: `sk_live_${'q'.repeat(30)}` });
    const own = await bed.credential(mine, { hosts: ['a.test'] });
    const gone = await bed.credential(mine, { hosts: ['a.test'], name: 'GONE', revoked: true });
    const engine = await bed.open(mine);
    const send = (token: string): Promise<Denied> =>
      denied(engine, head('https://a.test/', { headers: [['authorization', `Bearer ${token}`]] }));
    expect((await send(theirs.placeholder)).code).toBe('placeholder_foreign');
    expect((await send(gone.placeholder)).code).toBe('placeholder_revoked');
    expect((await send(`ghp_${'0'.repeat(36)}`)).code).toBe('placeholder_unknown');
    await allowed(engine, head('https://a.test/', { headers: [['authorization', `Bearer ${own.placeholder}`]] }));
    await allowed(
      engine,
      head('https://a.test/', { headers: [['authorization', 'Bearer something-of-its-own-0123456789']] }),
    );
    expect((await incidents(mine)).map(({ kind }) => kind)).toEqual([
      'placeholder_foreign',
      'placeholder_revoked',
      'placeholder_unknown',
    ]);
  });

  it('that need nothing from the sandbox are added, and never replace what it sends', async () => {
    const sessionId = await bed.session({ type: 'limited', allowed_hosts: ['mcp.test', 'git.test', 'else.test'] });
    await bed.credential(sessionId, {
      name: 'mcp',
      kind: 'static_bearer',
      hosts: ['mcp.test'],
      locations: ['header'],
      template: 'Bearer {value}',
      value: 'canary-bearer',
    });
    await bed.credential(sessionId, {
      name: 'git',
      kind: 'git',
      hosts: ['git.test'],
      locations: ['basic'],
      username: 'bot',
      value: 'canary-git',
    });
    const engine = await bed.open(sessionId);
    const sent = async (request: RequestHead): Promise<string | undefined> =>
      valueOf((await allowed(engine, request)).head.headers, 'authorization');
    expect(await sent(head('https://mcp.test/'))).toBe('Bearer canary-bearer');
    expect(await sent(head('https://mcp.test/', { headers: [['authorization', 'Bearer mine']] }))).toBe('Bearer mine');
    expect(await sent(head('https://git.test/'))).toBe(`Basic ${Buffer.from('bot:canary-git').toString('base64')}`);
    expect(await sent(head('https://else.test/'))).toBeUndefined();
    expect(await sent(head('wss://mcp.test/'.replace('wss', 'https'), { isWebSocket: true }))).toBe(
      'Bearer canary-bearer',
    );
  });

  it('a vault that is away stops what needs it, and nothing else', async () => {
    const sessionId = await bed.session({ type: 'unrestricted' });
    const { placeholder } = await bed.credential(sessionId, { hosts: ['a.test'] });
    const engine = await bed.open(sessionId);
    bed.secrets.isAway = true;
    try {
      const refused = await denied(engine, head('https://a.test/', { headers: [['x', placeholder]] }));
      expect(refused).toMatchObject({ status: 503, code: 'credential_unavailable' });
      await allowed(engine, head('https://a.test/'));
    } finally {
      bed.secrets.isAway = false;
    }
  });
});

describe('bodies', () => {
  it.each([
    ['application/json', (token: string) => JSON.stringify({ a: token }), JSON.stringify({ a: 'canary-"q" &\\' })],
    [
      'application/x-www-form-urlencoded',
      (token: string) => `a=${token}&b=1`,
      `a=${encodeURIComponent('canary-"q" &\\')}&b=1`,
    ],
    ['text/plain', (token: string) => `--${token}--`, '--canary-"q" &\\--'],
    [
      'multipart/form-data; boundary=x',
      (token: string) => `--x\r\n\r\n${token}\r\n--x--`,
      '--x\r\n\r\ncanary-"q" &\\\r\n--x--',
    ],
  ])('values stand in %s as it is written there, wherever the pieces are cut', async (type, write, expected) => {
    const sessionId = await bed.session({ type: 'unrestricted' });
    const { placeholder } = await bed.credential(sessionId, {
      hosts: ['a.test'],
      locations: ['body'],
      value: 'canary-"q" &\\',
    });
    const engine = await bed.open(sessionId);
    const text = write(placeholder);
    const headers: HeaderList = [
      ['content-type', type],
      ['content-length', String(text.length)],
    ];
    const { head: sent, requestBody } = await allowed(engine, head('https://a.test/', { method: 'POST', headers }));
    expect(valueOf(sent.headers, 'content-length')).toBeUndefined();
    for (const size of [1, 3, 7, 1_000]) {
      expect((await through(requestBody!, pieces(text, size))).toString()).toBe(expected);
    }
  });

  it('keep their length when the placeholder is as long as the value', async () => {
    const sessionId = await bed.session({ type: 'unrestricted' });
    const value = `canary-${'v'.repeat(33)}`;
    const { placeholder } = await bed.credential(sessionId, { hosts: ['a.test'], locations: ['body'], value });
    const engine = await bed.open(sessionId);
    const headers: HeaderList = [['content-length', '40']];
    const { head: sent, requestBody } = await allowed(engine, head('https://a.test/', { method: 'POST', headers }));
    expect(valueOf(sent.headers, 'content-length')).toBe('40');
    expect((await through(requestBody!, [Buffer.from(placeholder)])).toString()).toBe(value);
  });

  it('a placeholder that may not stand there breaks the request off and is told', async () => {
    const sessionId = await bed.session({ type: 'unrestricted' });
    const { placeholder } = await bed.credential(sessionId, { hosts: ['a.test'], locations: ['header', 'body'] });
    const engine = await bed.open(sessionId);
    const { requestBody } = await allowed(engine, head('https://evil.test/', { method: 'POST' }));
    const body = requestBody!();
    const error = await new Promise<Error>((resolve) => {
      body.once('error', resolve);
      body.resume();
      for (const part of pieces(`x=${placeholder}`, 5)) body.write(part);
    });
    expect(error).toMatchObject({ code: 'placeholder_misused' });
    await expect.poll(() => incidents(sessionId)).toMatchObject([{ kind: 'placeholder_misused', host: 'evil.test' }]);
    expect(await audit(sessionId)).toMatchObject([{ state: 'denied', code: 'placeholder_misused' }]);
  });

  it('what upstream gives back is the placeholder: headers, plain, Basic and compressed bodies', async () => {
    const sessionId = await bed.session({ type: 'unrestricted' });
    const { placeholder, value } = await bed.credential(sessionId, { hosts: ['a.test'] });
    const engine = await bed.open(sessionId);
    const request = head('https://a.test/', {
      headers: [
        ['x', placeholder],
        ['accept-encoding', 'gzip, zstd'],
      ],
    });
    const { head: sent, response } = await allowed(engine, request);
    expect(valueOf(sent.headers, 'accept-encoding')).toBeUndefined();
    const encodings: [string | null, (body: string) => Buffer][] = [
      [null, (body) => Buffer.from(body)],
      ['gzip', (body) => gzipSync(body)],
      ['br', (body) => brotliCompressSync(body)],
      ['deflate', (body) => deflateSync(body)],
      ['deflate', (body) => deflateRawSync(body)],
    ];
    for (const [encoding, compress] of encodings) {
      const changed = response!({
        status: 200,
        headers: [
          ['location', `https://a.test/?t=${value}`],
          ['content-length', '10'],
          ...(encoding === null ? [] : [['content-encoding', encoding] as const]),
        ],
      });
      expect(changed.headers).toEqual([['location', `https://a.test/?t=${placeholder}`]]);
      const bytes = compress(echo(value));
      const parts = Array.from({ length: bytes.length }, (_, at) => bytes.subarray(at, at + 1));
      expect((await through(changed.body!, parts)).toString()).toBe(echo(placeholder));
    }
    const twice = [['content-encoding', 'identity'] as const, ['content-encoding', 'gzip'] as const];
    for (const headers of [[['content-encoding', 'zstd'] as const], twice]) {
      const unreadable = response!({ status: 200, headers });
      await expect(through(unreadable.body!, [Buffer.from('x')])).rejects.toThrow('cannot be read');
    }
  });

  it('an answer that unpacks to much more than it is takes no more memory than any other', async () => {
    const sessionId = await bed.session({ type: 'unrestricted' });
    const { placeholder } = await bed.credential(sessionId, { hosts: ['a.test'] });
    const engine = await bed.open(sessionId);
    const { response } = await allowed(engine, head('https://a.test/', { headers: [['x', placeholder]] }));
    const zeros = 8 * 1024 * 1024;
    const body = response!({ status: 200, headers: [['content-encoding', 'gzip']] }).body!();
    body.end(gzipSync(Buffer.alloc(zeros)));
    let total = 0;
    let most = 0;
    for await (const chunk of body) {
      total += (chunk as Buffer).length;
      most = Math.max(most, body.readableLength);
    }
    expect(total).toBe(zeros);
    expect(most).toBeLessThan(256 * 1024);
  });

  it('the answer of a host that knows no value is not touched', async () => {
    const sessionId = await bed.session({ type: 'unrestricted' });
    await bed.credential(sessionId, { hosts: ['a.test'] });
    const engine = await bed.open(sessionId);
    const decision = await allowed(engine, head('https://b.test/', { headers: [['accept-encoding', 'zstd']] }));
    expect(decision.response).toBeUndefined();
    expect(valueOf(decision.head.headers, 'accept-encoding')).toBe('zstd');
  });

  it('a value that was replaced is still found, and texts of the session lose all of them', async () => {
    const sessionId = await bed.session({ type: 'unrestricted' });
    const { id, placeholder, value } = await bed.credential(sessionId, { hosts: ['a.test'] });
    const engine = await bed.open(sessionId);
    await allowed(engine, head('https://a.test/', { headers: [['x', placeholder]] }));
    bed.secrets.values.set(id, { value: 'canary-second-value-0123', version: 2, expiresAtMs: null });
    const texts = [`a ${value} b`, Buffer.from(`__canary-second-value-0123`).toString('base64'), 'nothing'];
    const clean = await bed.policies.redact(sessionId, texts);
    expect(clean.redactions).toBe(2);
    expect(clean.texts[0]).toBe(`a ${placeholder} b`);
    expect(Buffer.from(clean.texts[1]!, 'base64').toString()).toBe(`__${placeholder}`);
    expect(clean.texts[2]).toBe('nothing');
    bed.secrets.isAway = true;
    try {
      await expect(bed.policies.redact(sessionId, texts)).rejects.toThrow('cannot be had');
    } finally {
      bed.secrets.isAway = false;
    }
  });
});

describe('the audit', () => {
  it('has no gap, also when two brokers write for one sandbox', async () => {
    const sessionId = await bed.session({ type: 'unrestricted' });
    const sandboxId = await bed.sandbox(sessionId);
    const first = await bed.policies.open({ sessionId, sandboxId });
    for (let count = 0; count < 20; count += 1) (await allowed(first, head('https://a.test/'))).record(OUTCOME);
    await bed.restart();
    const second = await bed.policies.open({ sessionId, sandboxId });
    await bed.pool.query(
      `INSERT INTO egress_requests (sandbox_id, seq, id, session_id, team_id, state, decision, rule)
       VALUES ($1, 21, 'egrq_other', $2, 'team-a', 'started', 'allow', 'x')`,
      [sandboxId, sessionId],
    );
    for (let count = 0; count < 20; count += 1) (await allowed(second, head('https://a.test/'))).record(OUTCOME);
    await expect
      .poll(
        async () => (await bed.pool.query('SELECT 1 FROM egress_requests WHERE sandbox_id = $1', [sandboxId])).rowCount,
        {
          timeout: 20_000,
        },
      )
      .toBe(41);
    const rows = await audit(sessionId);
    expect(rows.map((row) => row.seq).toSorted((a, b) => a - b)).toEqual(Array.from({ length: 41 }, (_, at) => at + 1));
    expect(rows.filter((row) => row.state === 'completed')).toHaveLength(40);
  });

  it('does not fill the memory with refusals while the database is away', async () => {
    const pool = createPool({ databaseUrl: 'postgres://nobody@127.0.0.1:9/none', applicationName: 'test', max: 1 });
    const writer = new AuditWriter(pool, createLogger('test', 'silent'));
    const refusal: AuditStart = {
      sandboxId: 'sbx_a',
      sessionId: 'sess_a',
      teamId: 'team-a',
      state: 'denied',
      decision: 'deny',
      rule: 'broker',
      code: 'x',
      method: 'GET',
      host: null,
      port: null,
      isTls: false,
      path: null,
      status: 403,
      credentials: [],
      approvalId: null,
    };
    for (let sent = 0; sent < 3 * LIMITS.egressAuditWaiting; sent += 1) {
      writer.start({ ...refusal, sandboxId: `sbx_${sent}` });
    }
    expect(writer.isFull).toBe(true);
    expect(writer.waiting).toBe(2 * LIMITS.egressAuditWaiting);
    await pool.end();
  });

  it('of sandboxes that are gone for long is removed, and of no other', async () => {
    const sessionId = await bed.session({ type: 'unrestricted' });
    const [old, live] = [await bed.sandbox(sessionId), await bed.sandbox(sessionId)];
    for (const sandboxId of [old, live]) {
      const engine = await bed.policies.open({ sessionId, sandboxId });
      for (let count = 0; count < 3; count += 1) (await allowed(engine, head('https://a.test/'))).record(OUTCOME);
    }
    await bed.restart();
    const ago = `now() - interval '${LIMITS.egressAuditKeptMs / 1_000 + 60} s'`;
    await bed.pool.query(`UPDATE sandboxes SET state = 'destroyed', destroyed_at = ${ago} WHERE id = $1`, [old]);
    expect(await deleteOldEgressRequests(bed.pool, 2)).toBe(3);
    expect(await audit(sessionId)).toHaveLength(3);
    await bed.pool.query(
      `INSERT INTO security_events (id, team_id, session_id, kind, message, created_at)
       SELECT 'secv_' || n, 't', $1, 'address_refused', 'x', now() - n * interval '300 days' FROM generate_series(0, 3) AS n`,
      [sessionId],
    );
    expect(await deleteOldSecurityEvents(bed.pool, 1)).toBe(2);
  });

  it('writes the use of a credential before the request goes out', async () => {
    const sessionId = await bed.session({ type: 'unrestricted' });
    const { placeholder } = await bed.credential(sessionId, { hosts: ['a.test'] });
    const engine = await bed.open(sessionId);
    await allowed(engine, head('https://a.test/'));
    await allowed(engine, head('https://a.test/x?y', { headers: [['x', placeholder]] }));
    const { rows } = await bed.pool.query(
      'SELECT seq, state, path, credentials FROM egress_requests WHERE session_id = $1 ORDER BY seq',
      [sessionId],
    );
    expect(rows).toMatchObject([
      { seq: 1, state: 'started', credentials: [] },
      { seq: 2, state: 'started', path: '/x', credentials: ['GITHUB_TOKEN'] },
    ]);
  });
});
