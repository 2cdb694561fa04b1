import { request as httpRequest } from 'node:http';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { createPool } from '../../db/pool.ts';
import {
  createSession,
  errorOf,
  eventually,
  ledgerRows,
  messagesRequest,
  mintKey,
  openTestBed,
  post,
  scriptText,
  startGateway,
  startProxy,
  startUpstream,
  type RunningGateway,
  type TestBed,
} from './support.ts';

let bed: TestBed;
let gateway: RunningGateway;
let sessionId: string;
let key: string;

beforeAll(async () => {
  bed = await openTestBed();
  gateway = await startGateway(bed.pool);
});
afterAll(async () => {
  await gateway.close();
  await bed.close();
});
beforeEach(async () => {
  await bed.pool.query('TRUNCATE ledger, model_calls, scripted_calls');
  sessionId = await createSession(bed.pool);
  key = await mintKey(bed.pool, { sessionId });
});

function sendOwn(who: string): Promise<Response> {
  return post(`${gateway.url}/v1/messages`, who, messagesRequest('secret of a'), { 'idempotency-key': 'same' });
}

function cancel(who: string, step: number): Promise<Response> {
  return post(`${gateway.url}/v1/model-calls/cancel`, who, { idempotency_key: `${sessionId}/1/${step}` });
}

function ask(step: number, body: object, url = gateway.url): Promise<Response> {
  return askUnder(`${sessionId}/1/${step}`, body, url);
}

function askUnder(idempotencyKey: string, body: object, url = gateway.url): Promise<Response> {
  return post(`${url}/v1/messages`, key, body, { 'idempotency-key': idempotencyKey });
}

async function counts(): Promise<{ script: string; step: number; asked: number; billed: number }[]> {
  const response = await fetch(`${gateway.url}/scripted/calls?session=${sessionId}`, { headers: { 'x-api-key': key } });
  return ((await response.json()) as { data: { script: string; step: number; asked: number; billed: number }[] }).data;
}

const STREAM = { stream: true };

/** Sends the request, reads until `marker` has come, then destroys the connection. */
function dieAfter(marker: string, body: object): Promise<void> {
  return new Promise((resolve, reject) => {
    const req = httpRequest(
      `${gateway.url}/v1/messages`,
      { method: 'POST', headers: { 'x-api-key': key, 'idempotency-key': `${sessionId}/1/0` } },
      (res) => {
        let seen = '';
        res.on('data', (chunk: Buffer) => {
          seen += chunk.toString();
          if (!seen.includes(marker)) return;
          req.destroy();
          resolve();
        });
        res.on('error', () => undefined);
      },
    );
    req.on('error', reject);
    req.end(JSON.stringify(body));
  });
}

describe('recorded calls', () => {
  it.each([true, false])('replays the recorded bytes without paying again (stream: %s)', async (stream) => {
    const body = messagesRequest(scriptText([{ text: 'hello there' }]), { stream });
    const first = await ask(0, body);
    const text = await first.text();
    expect(first.headers.get('x-longhaul-replayed')).toBeNull();
    expect(await ledgerRows(bed.pool)).toMatchObject([
      { call_key: `${sessionId}/1/0`, session_id: sessionId, turn: 1, step: 0, usage_basis: 'reported', error: null },
    ]);
    const second = await ask(0, body);
    expect(second.headers.get('x-longhaul-replayed')).toBe('true');
    expect(second.headers.get('content-type')).toBe(first.headers.get('content-type'));
    expect(await second.text()).toBe(text);
    expect(await ledgerRows(bed.pool)).toHaveLength(1);
    expect(await counts()).toMatchObject([{ step: 0, asked: 1, billed: 1 }]);
  });

  it('answers a step from its record when another build words the request differently', async () => {
    const text = await (await ask(0, messagesRequest('one'))).text();
    const response = await ask(0, messagesRequest('two'));
    expect(response.headers.get('x-longhaul-replayed')).toBe('true');
    expect(await response.text()).toBe(text);
    expect(await ledgerRows(bed.pool)).toHaveLength(1);
  });

  it("refuses another body under a key of the caller's own", async () => {
    await (await askUnder('mine', messagesRequest('one'))).text();
    const response = await askUnder('mine', messagesRequest('two'));
    expect(response.status).toBe(409);
    expect(response.headers.get('x-should-retry')).toBe('false');
    expect((await errorOf(response)).code).toBe('idempotency_conflict');
  });

  it('makes one call for requests that come at once', async () => {
    const body = messagesRequest(scriptText([{ text: 'one for all', chunks: 5, chunkMs: 30 }]), STREAM);
    const answers = await Promise.all(Array.from({ length: 8 }, async () => (await ask(0, body)).text()));
    expect(new Set(answers).size).toBe(1);
    expect(answers[0]).toContain('message_stop');
    expect(await counts()).toMatchObject([{ asked: 1, billed: 1 }]);
    expect(await ledgerRows(bed.pool)).toHaveLength(1);
  });

  it('makes one call for requests that come to two gateways at once', async () => {
    const other = await startGateway(bed.pool);
    try {
      const body = messagesRequest(scriptText([{ text: 'one for all', chunks: 5, chunkMs: 30 }]), STREAM);
      const [here, there] = await Promise.all([
        ask(0, body).then((response) => response.text()),
        ask(0, body, other.url).then((response) => response.text()),
      ]);
      expect(here).toBe(there);
      expect(await counts()).toMatchObject([{ asked: 1, billed: 1 }]);
    } finally {
      await other.close();
    }
  });

  it('finishes a call whose caller died, and gives the answer to the retry', async () => {
    const body = messagesRequest(scriptText([{ text: 'a b c d e f g h i j', chunks: 10, chunkMs: 40 }]), STREAM);
    await dieAfter('text_delta', body);
    const retry = await ask(0, body);
    const text = await retry.text();
    expect(text.match(/text_delta/g)).toHaveLength(10);
    expect(text).toContain('message_stop');
    expect(await counts()).toMatchObject([{ asked: 1, billed: 1 }]);
    expect(await ledgerRows(bed.pool)).toHaveLength(1);
  });

  it('finishes a call of a dead caller that nobody retries', async () => {
    const body = messagesRequest(scriptText([{ text: 'a b c d', chunks: 4, chunkMs: 30 }]), STREAM);
    await dieAfter('text_delta', body);
    const rows = await eventually(async () => {
      const found = await ledgerRows(bed.pool);
      return found.length > 0 && found;
    });
    expect(rows).toMatchObject([{ call_key: `${sessionId}/1/0`, http_status: 200, error: null }]);
    const calls = await bed.pool.query('SELECT state, status FROM model_calls');
    expect(calls.rows).toEqual([{ state: 'complete', status: 200 }]);
  });

  it('shows the end of a stream only after the answer is recorded', async () => {
    const body = messagesRequest(scriptText([{ text: 'x' }]), STREAM);
    const response = await ask(0, body);
    for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) {
      if (!Buffer.from(chunk).includes('message_stop')) continue;
      expect(await ledgerRows(bed.pool)).toHaveLength(1);
    }
  });

  it('does not consume the key when the provider failed before any token', async () => {
    const body = messagesRequest(scriptText([{ text: 'finally', error: { status: 529, message: 'busy', times: 2 } }]));
    for (const attempt of [1, 2]) {
      const failed = await ask(0, body);
      expect([attempt, failed.status, (await errorOf(failed)).code]).toEqual([attempt, 529, 'provider_unavailable']);
      expect(await ledgerRows(bed.pool)).toHaveLength(0);
    }
    const response = await ask(0, body);
    expect(await response.text()).toContain('finally');
    expect(await counts()).toMatchObject([{ asked: 3, billed: 1 }]);
    expect(await ledgerRows(bed.pool)).toHaveLength(1);
  });

  it('does not record an answer that was cut', async () => {
    const body = messagesRequest(scriptText([{ text: 'abc', chunks: 3, cutAfterChunks: 2 }]), STREAM);
    for (const asked of [1, 2]) {
      const text = await (await ask(0, body)).text();
      expect(text).toContain('event: error');
      expect(text).toContain('"code":"provider_unavailable"');
      expect(text).not.toContain('message_stop');
      expect(await counts()).toMatchObject([{ asked, billed: 0 }]);
    }
    expect(await ledgerRows(bed.pool)).toHaveLength(0);
    expect((await bed.pool.query('SELECT 1 FROM model_calls')).rows).toHaveLength(0);
  });

  it('refuses a step of another session', async () => {
    const other = await createSession(bed.pool);
    const response = await post(`${gateway.url}/v1/messages`, key, messagesRequest('hi'), {
      'idempotency-key': `${other}/1/0`,
    });
    expect(response.status).toBe(403);
    expect((await errorOf(response)).code).toBe('forbidden');
  });

  it('keeps equal keys of two callers apart', async () => {
    const [one, two] = await Promise.all([
      mintKey(bed.pool, { teamId: 'a', userId: 'a' }),
      mintKey(bed.pool, { teamId: 'b', userId: 'b' }),
    ]);
    await (await sendOwn(one)).text();
    const other = await sendOwn(two);
    expect(other.headers.get('x-longhaul-replayed')).toBeNull();
    await other.text();
    const again = await sendOwn(one);
    expect(again.headers.get('x-longhaul-replayed')).toBe('true');
    await again.text();
  });
});

describe('when Postgres goes away while the model answers', () => {
  it('keeps the end of the answer back until it is recorded', async () => {
    const target = new URL(bed.databaseUrl);
    const proxy = await startProxy(Number(target.port));
    target.hostname = '127.0.0.1';
    target.port = String(proxy.port);
    const pool = createPool({ databaseUrl: target.href, applicationName: 'behind-proxy' });
    try {
      const body = messagesRequest('hi', STREAM);
      const upstream = await startUpstream();
      const behind = await startGateway(pool, { ANTHROPIC_BASE_URL: upstream.url });
      let finish: (() => void) | undefined;
      upstream.answer = (_req, res) => {
        res.writeHead(200, { 'content-type': 'text/event-stream' }).write('event: ping\ndata: {"type":"ping"}\n\n');
        finish = () => res.end('event: message_stop\ndata: {"type":"message_stop"}\n\n');
      };
      const response = await ask(0, { ...body, model: 'claude-opus-5' }, behind.url);
      await proxy.stop();
      finish?.();
      const reader = response.text();
      const early = await Promise.race([reader, new Promise((resolve) => setTimeout(resolve, 700, 'nothing yet'))]);
      expect(early).toBe('nothing yet');
      const refused = await ask(1, body, behind.url);
      expect(refused.status).toBe(503);
      expect((await errorOf(refused)).code).toBe('database_unavailable');
      await proxy.start();
      expect(await reader).toContain('message_stop');
      expect(await ledgerRows(bed.pool)).toMatchObject([{ call_key: `${sessionId}/1/0` }]);
      await behind.close();
      await upstream.close();
    } finally {
      await pool.end();
      await proxy.stop();
    }
  });
});

describe('cancel', () => {
  it('ends a running call for good', async () => {
    const body = messagesRequest(scriptText([{ text: 'slow', chunks: 4, chunkMs: 60_000 }]), STREAM);
    const response = await ask(0, body);
    const cancelled = await cancel(key, 0);
    expect(await cancelled.json()).toMatchObject({ state: 'cancelled', idempotency_key: `${sessionId}/1/0` });
    expect(await response.text()).toContain('"code":"cancelled"');
    const rows = await ledgerRows(bed.pool);
    expect(rows).toMatchObject([{ usage_basis: 'estimated', error: 'cancelled' }]);
    const retry = await ask(0, body);
    expect(retry.status).toBe(409);
    expect(retry.headers.get('x-should-retry')).toBe('false');
    expect((await errorOf(retry)).code).toBe('cancelled');
    expect(await counts()).toMatchObject([{ asked: 1, billed: 0 }]);
  });

  it('ends a call that runs in another gateway', async () => {
    const other = await startGateway(bed.pool, { LONGHAUL_GATEWAY_LEASE_MS: '300' });
    try {
      const body = messagesRequest(scriptText([{ text: 'slow', chunks: 4, chunkMs: 60_000 }]), STREAM);
      const response = await ask(0, body, other.url);
      expect((await cancel(key, 0)).status).toBe(200);
      expect(await response.text()).toContain('"code":"cancelled"');
    } finally {
      await other.close();
    }
  });

  it('leaves an answer that was recorded', async () => {
    const body = messagesRequest('hi');
    const text = await (await ask(0, body)).text();
    expect(await (await cancel(key, 0)).json()).toMatchObject({ state: 'complete' });
    expect(await (await ask(0, body)).text()).toBe(text);
  });

  it('never pays for a request that comes after its cancellation', async () => {
    await cancel(key, 7);
    expect((await ask(7, messagesRequest('too late'))).status).toBe(409);
    expect(await counts()).toEqual([]);
  });

  it('is for the session itself only', async () => {
    const stranger = await mintKey(bed.pool, { sessionId: await createSession(bed.pool) });
    expect((await cancel(stranger, 0)).status).toBe(403);
  });
});
