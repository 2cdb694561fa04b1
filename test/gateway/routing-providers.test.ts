import { createHash, createHmac, createPublicKey, createVerify, generateKeyPairSync } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import type { IncomingHttpHeaders } from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { crc32 } from 'node:zlib';
import Anthropic from '@anthropic-ai/sdk';
import { AzureOpenAI } from 'openai';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import {
  errorOf,
  eventually,
  ledgerRows,
  messagesRequest,
  mintKey,
  openTestBed,
  post,
  startGateway,
  startUpstream,
  type RunningGateway,
  type TestBed,
  type Upstream,
} from './support.ts';

const AWS = { id: 'AKIDEXAMPLE', secret: 'wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY', token: 'session/token==' };
const MODEL = 'eu.anthropic.claude-opus-5-v1:0';
const JSON_TYPE = { 'content-type': 'application/json' };
const ANSWER = {
  id: 'msg_1',
  type: 'message',
  role: 'assistant',
  model: 'claude-opus-5',
  content: [{ type: 'text', text: 'hello' }],
  stop_reason: 'end_turn',
  stop_sequence: null,
  usage: { input_tokens: 3, output_tokens: 4 },
};
const EVENTS: { type: string }[] = [
  { type: 'message_start', message: { ...ANSWER, content: [], stop_reason: null } },
  { type: 'content_block_start', index: 0, content_block: { type: 'text', text: '' } },
  { type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text: 'hé' } },
  { type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text: 'llo' } },
  { type: 'content_block_stop', index: 0 },
  { type: 'message_delta', delta: { stop_reason: 'end_turn' }, usage: { output_tokens: 9 } },
  { type: 'message_stop' },
] as { type: string }[];

let bed: TestBed;
let upstream: Upstream;
let tokens: Upstream;
let folder: string;
let gateway: RunningGateway;
let key: string;
const account = generateKeyPairSync('rsa', { modulusLength: 2_048 });

beforeAll(async () => {
  [bed, upstream, tokens] = await Promise.all([openTestBed(), startUpstream(), startUpstream()]);
  folder = await mkdtemp(path.join(os.tmpdir(), 'longhaul-providers-'));
  const file = path.join(folder, 'gateway.yaml');
  const vertex = { provider: 'vertex', model: 'claude-opus-5@20260101', project: 'my-project', base_url: upstream.url };
  await writeFile(
    file,
    JSON.stringify({
      routes: [
        {
          name: 'bedrock',
          retries: 0,
          allowed_fails: 1_000,
          cooldown_ms: 0,
          deployments: [
            {
              provider: 'bedrock',
              model: MODEL,
              region: 'eu-central-1',
              base_url: upstream.url,
              access_key_id: 'env:MY_AWS_ID',
              secret_access_key: 'env:MY_AWS_SECRET',
              session_token: 'env:MY_AWS_TOKEN',
            },
          ],
        },
        { name: 'vertex', deployments: [{ ...vertex, location: 'europe-west1', credentials: 'env:MY_VERTEX_KEY' }] },
        { name: 'broken', retries: 0, deployments: [{ ...vertex, location: 'global', credentials: 'env:BROKEN_KEY' }] },
        {
          name: 'azure',
          deployments: [
            {
              provider: 'azure-openai',
              model: 'my-gpt-4o',
              base_url: upstream.url,
              api_key: 'env:MY_AZURE_KEY',
              api_version: '2024-10-21',
            },
          ],
        },
      ],
    }),
  );
  gateway = await startGateway(bed.pool, {
    LONGHAUL_GATEWAY_CONFIG: file,
    MY_AWS_ID: AWS.id,
    MY_AWS_SECRET: AWS.secret,
    MY_AWS_TOKEN: AWS.token,
    MY_AZURE_KEY: 'azure-key',
    MY_VERTEX_KEY: JSON.stringify(serviceAccount()),
    BROKEN_KEY: JSON.stringify({ ...serviceAccount(), private_key: 'no key' }),
  });
  key = await mintKey(bed.pool);
});
afterAll(async () => {
  await gateway.close();
  await Promise.all([upstream.close(), tokens.close()]);
  await bed.close();
  await rm(folder, { recursive: true });
});
beforeEach(() => {
  upstream.requests.length = 0;
});

function serviceAccount(): Record<string, string> {
  return {
    type: 'service_account',
    project_id: 'my-project',
    private_key_id: 'k1',
    private_key: account.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    client_email: 'gateway@my-project.iam.gserviceaccount.com',
    client_id: '1',
    token_uri: `${tokens.url}/token`,
  };
}

const hmac = (secret: string | Buffer, text: string): Buffer => createHmac('sha256', secret).update(text).digest();
const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex');

/** Signature Version 4 as AWS' documentation describes it, computed here once more. */
function signatureOf(request: { path: string; headers: IncomingHttpHeaders; body: string }): string {
  const { headers } = request;
  const match = /^AWS4-HMAC-SHA256 Credential=([^,]+), ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]+)$/.exec(
    headers.authorization ?? '',
  );
  const [, scope = '', signed = ''] = match ?? [];
  const [id, day = '', region = '', service = '', end = ''] = scope.split('/');
  expect([id, region, service, end]).toEqual([AWS.id, 'eu-central-1', 'bedrock', 'aws4_request']);
  expect(signed.split(';')).toEqual(expect.arrayContaining(['host', 'x-amz-date', 'x-amz-security-token']));
  const canonicalHeaders = signed.split(';').map((name) => `${name}:${String(headers[name]).trim()}\n`);
  const canonicalPath = request.path
    .split('/')
    .map((part) => encodeURIComponent(part))
    .join('/');
  const canonical = ['POST', canonicalPath, '', canonicalHeaders.join(''), signed, sha256(request.body)].join('\n');
  const toSign = ['AWS4-HMAC-SHA256', headers['x-amz-date'], `${day}/${region}/${service}/${end}`, sha256(canonical)];
  const secret = [day, region, service, end].reduce<string | Buffer>(
    (from, part) => hmac(from, part),
    `AWS4${AWS.secret}`,
  );
  return hmac(secret, toSign.join('\n')).toString('hex');
}

const word = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
};

/** One message of AWS' event stream encoding. */
function frame(headers: Record<string, string>, payload: object): Buffer {
  const parts = Object.entries(headers).map(([name, value]) => {
    const head = Buffer.from([name.length, ...Buffer.from(name), 7, 0, 0]);
    head.writeUInt16BE(Buffer.byteLength(value), head.length - 2);
    return Buffer.concat([head, Buffer.from(value)]);
  });
  const block = Buffer.concat(parts);
  const body = Buffer.from(JSON.stringify(payload));
  const prelude = Buffer.alloc(8);
  prelude.writeUInt32BE(16 + block.length + body.length, 0);
  prelude.writeUInt32BE(block.length, 4);
  const start = Buffer.concat([prelude, word(crc32(prelude)), block, body]);
  return Buffer.concat([start, word(crc32(start))]);
}

const chunkFrame = (event: object): Buffer =>
  frame(
    { ':event-type': 'chunk', ':content-type': 'application/json', ':message-type': 'event' },
    { bytes: Buffer.from(JSON.stringify(event)).toString('base64'), p: 'abc' },
  );

const client = (apiKey: string = key): Anthropic => new Anthropic({ baseURL: gateway.url, apiKey, maxRetries: 0 });
const ask = { max_tokens: 9, messages: [{ role: 'user' as const, content: 'hi' }] };

describe('bedrock', () => {
  it('is asked with AWS’ signature, the model in the path and the version in the body', async () => {
    upstream.answer = (_req, res) => res.writeHead(200, JSON_TYPE).end(JSON.stringify(ANSWER));
    const sent = { model: 'bedrock', ...ask };
    const answer = await client().beta.messages.create({ ...sent, betas: ['beta-1', 'beta-2'] });
    expect(answer.content).toEqual(ANSWER.content);
    const [seen] = upstream.requests;
    if (seen === undefined) throw new Error('nothing arrived');
    expect(seen.path).toBe(`/model/${encodeURIComponent(MODEL)}/invoke`);
    expect(seen.headers['x-amz-security-token']).toBe(AWS.token);
    expect(seen.headers.authorization).toContain(`Signature=${signatureOf(seen)}`);
    expect(JSON.parse(seen.body)).toEqual({
      ...ask,
      anthropic_version: 'bedrock-2023-05-31',
      anthropic_beta: ['beta-1', 'beta-2'],
    });
    expect(JSON.stringify(seen)).not.toContain(AWS.secret);
    expect(JSON.stringify(seen)).not.toContain(key);
  });

  it.each([1, 5, 100_000])('streams: frames become Anthropic’s events (pieces of %i bytes)', async (size) => {
    const userId = `pieces-of-${size}`;
    const own = await mintKey(bed.pool, { userId });
    upstream.answer = (_req, res) => {
      res.writeHead(200, { 'content-type': 'application/vnd.amazon.eventstream' });
      const bytes = Buffer.concat(EVENTS.map(chunkFrame));
      for (let at = 0; at < bytes.length; at += size) res.write(bytes.subarray(at, at + size));
      res.end();
    };
    const message = await client(own)
      .messages.stream({ model: 'bedrock', ...ask })
      .finalMessage();
    expect(message.content).toEqual([{ type: 'text', text: 'héllo' }]);
    expect(message.usage.output_tokens).toBe(9);
    const [seen] = upstream.requests;
    if (seen === undefined) throw new Error('nothing arrived');
    expect(seen.path).toBe(`/model/${encodeURIComponent(MODEL)}/invoke-with-response-stream`);
    expect(seen.headers.authorization).toContain(signatureOf(seen));
    expect(JSON.parse(seen.body)).not.toHaveProperty('stream');
    const row = await eventually(async () => (await ledgerRows(bed.pool)).find((found) => found['user_id'] === userId));
    expect(row).toMatchObject({
      provider: 'bedrock',
      model: MODEL,
      output_tokens: 9,
      usage_basis: 'reported',
      error: null,
    });
  });

  it('gives Anthropic’s errors for AWS’', async () => {
    upstream.answer = (_req, res) => res.writeHead(429, JSON_TYPE).end('{"message":"Too many requests"}');
    const response = await post(`${gateway.url}/v1/messages`, key, messagesRequest('hi', { model: 'bedrock' }));
    expect(response.status).toBe(429);
    expect(await errorOf(response)).toMatchObject({ message: 'Too many requests' });
  });

  it('gives an error event for an exception in the middle of a stream', async () => {
    upstream.answer = (_req, res) => {
      res.writeHead(200, { 'content-type': 'application/vnd.amazon.eventstream' });
      for (const event of EVENTS.slice(0, 3)) res.write(chunkFrame(event));
      const headers = { ':exception-type': 'throttlingException', ':message-type': 'exception' };
      res.end(frame(headers, { message: 'slow down' }));
    };
    const stream = client().messages.stream({ model: 'bedrock', ...ask });
    await expect(stream.finalMessage()).rejects.toThrow(/slow down/);
    expect(stream.currentMessage?.content).toEqual([{ type: 'text', text: 'hé' }]);
  });

  it('takes no frame whose checksum is wrong', async () => {
    upstream.answer = (_req, res) => {
      const bytes = Buffer.concat(EVENTS.map(chunkFrame));
      const at = bytes.indexOf('"bytes"') + 12;
      bytes[at] = (bytes[at] ?? 0) ^ 1;
      res.writeHead(200, { 'content-type': 'application/vnd.amazon.eventstream' }).end(bytes);
    };
    const body = messagesRequest('hi', { model: 'bedrock', stream: true });
    const response = await post(`${gateway.url}/v1/messages`, key, body);
    expect(response.status).toBe(529);
    expect((await errorOf(response)).message).toContain('a frame of the answer is broken');
  });

  it('counts no tokens and says so', async () => {
    const body = messagesRequest('hi', { model: 'bedrock' });
    const response = await post(`${gateway.url}/v1/messages/count_tokens`, key, body);
    expect(response.status).toBe(404);
    expect((await errorOf(response)).message).toContain('does not count tokens');
  });
});

describe('vertex', () => {
  const grants: string[] = [];
  beforeEach(() => {
    tokens.answer = (_req, res, body) => {
      const assertion = new URLSearchParams(body).get('assertion') ?? '';
      const [head = '', claims = '', signature = ''] = assertion.split('.');
      const isSigned = createVerify('RSA-SHA256')
        .update(`${head}.${claims}`)
        .verify(createPublicKey(account.privateKey), Buffer.from(signature, 'base64url'));
      const { iss, scope } = JSON.parse(Buffer.from(claims, 'base64url').toString()) as Record<string, string>;
      const isRight = isSigned && iss === serviceAccount()['client_email'] && scope?.endsWith('/auth/cloud-platform');
      if (isRight !== true) return void res.writeHead(400, JSON_TYPE).end('{"error":"invalid_grant"}');
      const token = `ya29.token-${grants.length + 1}`;
      grants.push(token);
      res
        .writeHead(200, JSON_TYPE)
        .end(JSON.stringify({ access_token: token, expires_in: 3_600, token_type: 'Bearer' }));
    };
  });

  it('is asked with a token of Google’s, fetched once', async () => {
    upstream.answer = (_req, res) => res.writeHead(200, JSON_TYPE).end(JSON.stringify(ANSWER));
    for (let call = 0; call < 3; call += 1) await client().messages.create({ model: 'vertex', ...ask });
    expect(grants).toEqual(['ya29.token-1']);
    const [seen] = upstream.requests;
    expect(seen?.headers.authorization).toBe('Bearer ya29.token-1');
    expect(seen?.path).toBe(
      '/v1/projects/my-project/locations/europe-west1/publishers/anthropic/models/claude-opus-5@20260101:rawPredict',
    );
    expect(JSON.parse(seen?.body ?? '')).toEqual({ ...ask, anthropic_version: 'vertex-2023-10-16' });
  });

  it('streams', async () => {
    upstream.answer = (_req, res) => {
      res.writeHead(200, { 'content-type': 'text/event-stream' });
      res.end(EVENTS.map((event) => `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`).join(''));
    };
    const message = await client()
      .messages.stream({ model: 'vertex', ...ask })
      .finalMessage();
    expect(message.content).toEqual([{ type: 'text', text: 'héllo' }]);
    expect(upstream.requests[0]?.path).toMatch(/:streamRawPredict$/);
    expect(JSON.parse(upstream.requests[0]?.body ?? '')).toMatchObject({ stream: true });
  });

  it('counts tokens', async () => {
    upstream.answer = (_req, res) => res.writeHead(200, JSON_TYPE).end('{"input_tokens":12}');
    const { messages } = ask;
    expect(await client().messages.countTokens({ model: 'vertex', messages })).toEqual({ input_tokens: 12 });
    expect(upstream.requests[0]?.path).toMatch(/models\/count-tokens:rawPredict$/);
    expect(JSON.parse(upstream.requests[0]?.body ?? '')).toMatchObject({ model: 'claude-opus-5@20260101' });
  });

  it('that gives no token is the gateway’s fault, and its words stay here', async () => {
    const response = await post(`${gateway.url}/v1/messages`, key, messagesRequest('hi', { model: 'broken' }));
    expect(response.status).toBe(502);
    const error = await errorOf(response);
    expect(error.code).toBe('provider_auth');
    expect(error.message).toBe('Google gave the gateway no token');
    expect(upstream.requests).toEqual([]);
  });
});

describe('azure-openai', () => {
  it('is asked as Microsoft’s own SDK would ask', async () => {
    const completion = { id: 'c', object: 'chat.completion', created: 1, model: 'm', choices: [] };
    upstream.answer = (_req, res) => res.writeHead(200, JSON_TYPE).end(JSON.stringify(completion));
    const messages = [{ role: 'user' as const, content: 'hi' }];
    const direct = new AzureOpenAI({ endpoint: upstream.url, apiKey: 'azure-key', apiVersion: '2024-10-21' });
    await direct.chat.completions.create({ model: 'my-gpt-4o', messages });
    await direct.responses.create({ model: 'my-gpt-4o', input: 'hi' });
    for (const [route, body] of [
      ['chat/completions', { model: 'azure', messages }],
      ['responses', { model: 'azure', input: 'hi' }],
    ] as const) {
      expect((await post(`${gateway.url}/v1/${route}`, key, body)).status).toBe(200);
    }
    const asked = upstream.requests.map(({ path: at, headers, body }) => ({
      at,
      apiKey: headers['api-key'],
      authorization: headers.authorization,
      body: JSON.parse(body) as object,
    }));
    expect(asked.slice(2)).toEqual(asked.slice(0, 2));
    expect(asked[2]).toMatchObject({ apiKey: 'azure-key', authorization: undefined });
  });
});
