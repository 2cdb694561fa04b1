import { ApiError, GoogleGenAI, type GenerateContentResponse, type Part } from '@google/genai';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { insertModelRoute } from '../../db/queries/model-routes.ts';
import {
  createSession,
  eventually,
  ledgerRows,
  mintKey,
  openTestBed,
  scriptText,
  startGateway,
  startUpstream,
  type LedgerRow,
  type RunningGateway,
  type TestBed,
  type Upstream,
} from './support.ts';

const WAIT_MS = 120_000;
const FAKE_KEY = 'google-key-of-the-gateway';

let bed: TestBed;
let upstream: Upstream;
let gateway: RunningGateway;
let key: string;
let client: GoogleGenAI;
beforeAll(async () => {
  bed = await openTestBed();
  upstream = await startUpstream();
  gateway = await startGateway(bed.pool, {
    GOOGLE_KEY: FAKE_KEY,
    LONGHAUL_GATEWAY_CREDENTIALS: 'GOOGLE_KEY@127.0.0.1',
    LONGHAUL_GATEWAY_HOSTS: '127.0.0.1',
  });
  key = await mintKey(bed.pool);
  client = clientOf(key);
}, WAIT_MS);
afterAll(async () => {
  await gateway.close();
  await upstream.close();
  await bed.close();
}, WAIT_MS);

function clientOf(apiKey: string): GoogleGenAI {
  return new GoogleGenAI({ apiKey, httpOptions: { baseUrl: gateway.url } });
}

const BASH = { functionDeclarations: [{ name: 'bash', parametersJsonSchema: { type: 'object' } }] };

function ask(text: string, config: object = {}): Promise<GenerateContentResponse> {
  return client.models.generateContent({ model: 'scripted', contents: text, config });
}

/** The parts of a stream, text that came in pieces in pieces. */
async function stream(text: string, config: object = {}): Promise<{ parts: Part[]; last: GenerateContentResponse }> {
  const parts: Part[] = [];
  let last: GenerateContentResponse | undefined;
  for await (const chunk of await client.models.generateContentStream({ model: 'scripted', contents: text, config })) {
    parts.push(...(chunk.candidates?.[0]?.content?.parts ?? []));
    last = chunk;
  }
  if (last === undefined) throw new Error('an empty stream');
  return { parts, last };
}

async function failureOf(promise: Promise<unknown>): Promise<ApiError & { said: Record<string, unknown> }> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof ApiError)) throw new Error(`no ApiError: ${String(error)}`);
  const text = error.message.slice(error.message.indexOf('{'));
  return Object.assign(error, { said: (JSON.parse(text) as { error: Record<string, unknown> }).error });
}

/** The row of the call whose answer had so many output tokens. */
function rowOf(outputTokens: number): Promise<LedgerRow> {
  return eventually(async () =>
    (await ledgerRows(bed.pool)).find(
      (row) => row['protocol'] === 'gemini' && row['output_tokens'] === outputTokens && row['error'] === null,
    ),
  );
}

describe('the scripted model, asked by Google’s own client', () => {
  const step = {
    thinking: 'hm',
    text: 'I look around.',
    tools: [
      { name: 'bash', input: { command: 'ls é' } },
      { name: 'bash', input: { command: 'pwd' } },
    ],
    usage: { input: 70, output: 4_001, cacheRead: 30 },
  };

  it('answers whole: thoughts, text, calls with ids, usage', async () => {
    const answer = await ask(scriptText([step]), { tools: [BASH] });
    const [candidate] = answer.candidates ?? [];
    expect(candidate?.finishReason).toBe('STOP');
    expect(candidate?.content?.parts).toMatchObject([
      { text: 'hm', thought: true },
      { text: 'I look around.' },
      { functionCall: { name: 'bash', args: { command: 'ls é' } } },
      { functionCall: { name: 'bash', args: { command: 'pwd' } } },
    ]);
    const ids = answer.functionCalls?.map(({ id }) => id) ?? [];
    expect(new Set(ids).size).toBe(2);
    expect(answer.usageMetadata).toEqual({
      promptTokenCount: 100,
      cachedContentTokenCount: 30,
      candidatesTokenCount: 4_001,
      totalTokenCount: 4_101,
    });
    expect(await rowOf(4_001)).toMatchObject({
      provider: 'scripted',
      input_tokens: 70,
      cache_read_tokens: 30,
      usage_basis: 'reported',
      http_status: 200,
    });
  });

  it('streams the same in pieces', async () => {
    const text = scriptText([{ ...step, usage: { input: 5, output: 4_002 } }]);
    const { parts, last } = await stream(text, { tools: [BASH] });
    const said = parts.filter((part) => part.text !== undefined && part.thought !== true).map((part) => part.text);
    expect(said.join('')).toBe('I look around.');
    expect(said.length).toBeGreaterThan(2);
    expect(parts.flatMap(({ functionCall }) => functionCall?.args ?? [])).toEqual([
      { command: 'ls é' },
      { command: 'pwd' },
    ]);
    expect(last.candidates?.[0]?.finishReason).toBe('STOP');
    expect(last.usageMetadata).toMatchObject({ promptTokenCount: 5, candidatesTokenCount: 4_002 });
    expect(await rowOf(4_002)).toMatchObject({ input_tokens: 5, usage_basis: 'reported' });
  });

  it('plays a conversation with a tool, as the client keeps it', async () => {
    const chat = client.chats.create({ model: 'scripted', config: { tools: [BASH] } });
    const script = scriptText([
      { text: 'first', tools: [{ name: 'bash', input: { command: 'a' } }] },
      { text: 'got {{lastToolResult}}' },
    ]);
    let call: { id?: string; name?: string } | undefined;
    for await (const chunk of await chat.sendMessageStream({ message: script })) call ??= chunk.functionCalls?.[0];
    if (call?.id === undefined) throw new Error('no call');
    const response = { id: call.id, name: 'bash', response: { output: scriptText([{ text: 'hijacked' }]) } };
    const second = await chat.sendMessage({ message: [{ functionResponse: response }] });
    expect(second.text).toBe(`got ${scriptText([{ text: 'hijacked' }])}`);
    expect((await chat.sendMessage({ message: 'go on' })).text).toBe('done');
  });

  it('waits as it is told, before the first piece and between them', async () => {
    const { parts } = await stream(scriptText([{ text: 'abc', chunks: 3, delayMs: 20, chunkMs: 20 }]));
    expect(parts.map(({ text }) => text).join('')).toBe('abc');
  });

  it('counts tokens for nothing', async () => {
    const sessionId = await createSession(bed.pool);
    const own = clientOf(await mintKey(bed.pool, { sessionId }));
    const counted = await own.models.countTokens({ model: 'scripted', contents: 'x'.repeat(400) });
    expect(counted.totalTokens).toBeGreaterThan(100);
    const paid = scriptText([{ text: 'x', usage: { output: 4_004 } }]);
    await own.models.generateContent({ model: 'scripted', contents: paid });
    await rowOf(4_004);
    expect((await ledgerRows(bed.pool)).filter((row) => row['session_id'] === sessionId)).toHaveLength(1);
  });

  it('is in the list of models', async () => {
    const names: (string | undefined)[] = [];
    for await (const model of await client.models.list({ config: { queryBase: true } })) names.push(model.name);
    expect(names).toContain('models/scripted');
    expect(await client.models.get({ model: 'scripted' })).toMatchObject({ name: 'models/scripted' });
    expect((await failureOf(client.models.get({ model: 'none' }))).status).toBe(404);
  });

  it.each([
    [400, 400, 'INVALID_ARGUMENT'],
    [401, 502, 'UNAVAILABLE'],
    [429, 429, 'RESOURCE_EXHAUSTED'],
    [500, 500, 'INTERNAL'],
    [503, 503, 'UNAVAILABLE'],
  ])('a scripted %i is a %i in Google’s words', async (status, seen, name) => {
    const script = scriptText([{ error: { status, message: 'so it is' } }]);
    for (const failed of [ask(script), stream(script)]) {
      const error = await failureOf(failed);
      expect(error.status).toBe(seen);
      expect(error.said).toMatchObject({ code: seen, status: name });
      if (seen === status) expect(error.said['message']).toBe('so it is');
    }
  });

  it('says in the stream that it broke off, and bills what was made', async () => {
    const seen: string[] = [];
    const script = scriptText([{ text: 'abcdef', chunks: 6, cutAfterChunks: 2, usage: { input: 4_003 } }]);
    const error = await failureOf(
      (async () => {
        for await (const chunk of await client.models.generateContentStream({ model: 'scripted', contents: script })) {
          seen.push(chunk.text ?? '');
        }
      })(),
    );
    expect(seen).toEqual(['a', 'b']);
    expect(error.said).toMatchObject({ status: 'UNAVAILABLE', details: [{ reason: 'provider_unavailable' }] });
  });

  it('takes a page for no answer', async () => {
    const script = scriptText([{ raw: { contentType: 'text/html', body: '<h1>Sign in</h1>' } }]);
    expect((await failureOf(ask(script))).said).toMatchObject({ details: [{ reason: 'provider_unavailable' }] });
  });
});

describe('refusals', () => {
  it('are in Google’s shape', async () => {
    const unknown = await failureOf(clientOf('lhv_none').models.generateContent({ model: 'scripted', contents: 'x' }));
    expect(unknown.said).toMatchObject({
      code: 401,
      status: 'UNAUTHENTICATED',
      details: [{ reason: 'invalid_api_key', domain: 'longhaul' }],
    });
    const model = await failureOf(client.models.generateContent({ model: 'nobody', contents: 'x' }));
    expect([model.status, model.said['status']]).toEqual([404, 'NOT_FOUND']);
    const sessionId = await createSession(bed.pool);
    const own = clientOf(await mintKey(bed.pool, { sessionId, followsTurn: true }));
    const idle = await failureOf(own.models.generateContent({ model: 'scripted', contents: 'x' }));
    expect(idle.said).toMatchObject({ code: 409, details: [{ reason: 'no_turn_running' }] });
  });

  it.each([
    // A key in an address ends in logs: it is not read.
    ['?key=KEY', {}, 401],
    ['', { 'x-goog-api-key': 'KEY' }, 400],
    ['?alt=json', { 'x-goog-api-key': 'KEY' }, 400],
    ['?alt=sse', { 'x-goog-api-key': 'KEY' }, 200],
    ['?alt=sse', { authorization: 'Bearer KEY' }, 200],
  ])('of a stream asked for with "%s" and %j', async (search, headers, status) => {
    const own = JSON.parse(JSON.stringify(headers).replace('KEY', key)) as Record<string, string>;
    const path = `/v1beta/models/scripted:streamGenerateContent${search.replace('KEY', key)}`;
    const body = JSON.stringify({ contents: [{ role: 'user', parts: [{ text: 'hi' }] }] });
    const answer = await fetch(gateway.url + path, { method: 'POST', headers: own, body });
    expect(answer.status).toBe(status);
    if (status !== 200) expect(await answer.json()).toMatchObject({ error: { code: status } });
    else await answer.text();
  });
});

describe('a deployment of Google’s API', () => {
  const route = 'gemini-of-ours';
  beforeAll(async () => {
    const deployment = {
      provider: 'gemini' as const,
      model: 'gemini-2.5-pro',
      base_url: upstream.url,
      api_key: 'env:GOOGLE_KEY',
      price: { input_nanos: 1_000, output_nanos: 10_000, cache_read_nanos: 100 },
    };
    await insertModelRoute(bed.pool, {
      teamId: 'team',
      userId: 'user',
      name: route,
      spec: { deployments: [deployment] },
    });
    await eventually(async () => {
      const names: (string | undefined)[] = [];
      for await (const model of await client.models.list({ config: { queryBase: true } })) names.push(model.name);
      return names.includes(`models/${route}`);
    });
  }, WAIT_MS);

  const USAGE = {
    promptTokenCount: 1_000,
    cachedContentTokenCount: 400,
    toolUsePromptTokenCount: 50,
    candidatesTokenCount: 30,
    thoughtsTokenCount: 5_003,
    totalTokenCount: 6_083,
  };

  it('gets the request as it was sent, with the gateway’s key, and its usage is read', async () => {
    const piece = { candidates: [{ content: { parts: [{ text: 'hi' }], role: 'model' }, index: 0 }] };
    const end = { candidates: [{ ...piece.candidates[0], finishReason: 'STOP' }], usageMetadata: USAGE };
    upstream.answer = (_req, res) => {
      res.writeHead(200, { 'content-type': 'text/event-stream' });
      res.write(`data: ${JSON.stringify({ ...piece, usageMetadata: { promptTokenCount: 1_000 } })}\r\n\r\n`);
      res.end(`data: ${JSON.stringify(end)}\r\n\r\n`);
    };
    const body = '{"contents":[{"role":"user","parts":[{"text":"hé"}]}],"generationConfig":{ "maxOutputTokens" : 9 }}';
    const answer = await fetch(`${gateway.url}/v1beta/models/${route}:streamGenerateContent?alt=sse`, {
      method: 'POST',
      headers: { 'x-goog-api-key': key },
      body,
    });
    expect((await answer.text()).match(/"text":"hi"/g)).toHaveLength(2);
    const sent = upstream.requests.at(-1);
    expect(sent?.path).toBe('/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse');
    expect(sent?.headers['x-goog-api-key']).toBe(FAKE_KEY);
    expect(sent?.body).toBe(body);
    expect(await rowOf(5_033)).toMatchObject({
      provider: 'gemini',
      model: 'gemini-2.5-pro',
      requested_model: route,
      input_tokens: 650,
      cache_read_tokens: 400,
      reasoning_tokens: 5_003,
      // (650 × 1,000 + 400 × 100 + 5,033 × 10,000) nano-dollars.
      cost_micros: 51_020,
      usage_basis: 'reported',
    });
  });

  it('answers whole, counts tokens, and its errors are passed on', async () => {
    upstream.answer = (req, res) => {
      res.writeHead(200, { 'content-type': 'application/json' });
      if (req.url?.endsWith(':countTokens') === true) res.end('{"totalTokens":12}');
      else {
        const candidates = [{ content: { parts: [{ text: 'whole' }], role: 'model' }, finishReason: 'STOP' }];
        res.end(JSON.stringify({ candidates, usageMetadata: { ...USAGE, thoughtsTokenCount: 5_004 } }, null, 2));
      }
    };
    expect((await client.models.generateContent({ model: route, contents: 'x' })).text).toBe('whole');
    expect(upstream.requests.at(-1)?.path).toBe('/v1beta/models/gemini-2.5-pro:generateContent');
    expect(await rowOf(5_034)).toMatchObject({ input_tokens: 650, usage_basis: 'reported' });
    expect((await client.models.countTokens({ model: route, contents: 'x' })).totalTokens).toBe(12);
    upstream.answer = (_req, res) => {
      const error = { code: 400, message: 'Request contains an invalid argument.', status: 'INVALID_ARGUMENT' };
      res.writeHead(400, { 'content-type': 'application/json' }).end(JSON.stringify({ error }));
    };
    const refused = await failureOf(client.models.generateContent({ model: route, contents: 'x' }));
    expect(refused.said).toEqual({
      code: 400,
      message: 'Request contains an invalid argument.',
      status: 'INVALID_ARGUMENT',
    });
  });

  it('a refusal of the gateway’s own key is no fault of the caller’s', async () => {
    upstream.answer = (_req, res) => {
      const details = [{ '@type': 'type.googleapis.com/google.rpc.ErrorInfo', reason: 'API_KEY_INVALID' }];
      const error = { code: 400, message: 'API key not valid.', status: 'INVALID_ARGUMENT', details };
      res.writeHead(400, { 'content-type': 'application/json' }).end(JSON.stringify({ error }));
    };
    const refused = await failureOf(client.models.generateContent({ model: route, contents: 'x' }));
    expect([refused.status, refused.said]).toMatchObject([502, { details: [{ reason: 'provider_auth' }] }]);
    expect(refused.message).toContain("refused the gateway's key");
  });

  it('is not asked on other paths', async () => {
    const answer = await fetch(`${gateway.url}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'x-api-key': key },
      body: JSON.stringify({ model: route, messages: [] }),
    });
    expect(answer.status).toBe(404);
    expect(((await answer.json()) as { error: { message: string } }).error.message).toContain(':generateContent');
  });
});
