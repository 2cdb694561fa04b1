import { createParser } from 'eventsource-parser';
import { Agent, request } from 'undici';
import { PROMPT_PREFIX_HEADER, type PromptCaching } from '../../contracts/caching.ts';
import type { ErrorCode } from '../../contracts/error-codes.ts';
import { ERROR_CATALOGUE, LonghaulError } from '../../contracts/error-codes.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { chatBody, ChatReader } from './openai-chat.ts';
import { messagesBody, MessagesReader } from './anthropic-messages.ts';
import { prefixHeader } from './prefix.ts';
import type { Prompt } from './prompt.ts';
import type { LiveText, ModelAnswer } from './stream.ts';

const dispatcher = new Agent({
  connections: 256,
  headersTimeout: LIMITS.modelFirstByteMs + 5_000,
  bodyTimeout: LIMITS.modelIdleMs + 5_000,
});

export interface ModelCall {
  gatewayUrl: string;
  /** The session's virtual key; never logged. */
  key: string;
  /** `stepKey`: the same call is paid once, however often it is asked for. */
  idempotencyKey: string;
  model: string;
  prompt: Prompt;
  caching: PromptCaching;
  live: LiveText;
  /** W3C context of the turn this call belongs to. */
  traceparent: string;
  signal: AbortSignal;
}

/** Models asked in the Messages protocol; every other is taken for one of a chat-completions server. */
function speaksChat(model: string): boolean {
  return !/^(scripted$|claude-|anthropic\/)/.test(model);
}

/** Asks the model once, through the gateway. Throws `LonghaulError` with the gateway's code. */
export async function callModel(call: ModelCall): Promise<ModelAnswer> {
  const chat = speaksChat(call.model);
  const reader = chat ? new ChatReader(call.live) : new MessagesReader(call.live);
  const body = chat ? chatBody(call.model, call.prompt) : messagesBody(call.model, call.prompt, call.caching);
  const response = await post(call, chat ? '/v1/chat/completions' : '/v1/messages', body);
  if (response.statusCode !== 200) throw await refusal(response);
  const decoder = new TextDecoder();
  const parser = createParser({
    onEvent: (event) => reader.push(event.data),
    maxBufferSize: LIMITS.recordedCallBytes,
  });
  try {
    for await (const chunk of response.body as AsyncIterable<Uint8Array>) {
      parser.feed(decoder.decode(chunk, { stream: true }));
    }
  } catch (error) {
    if (call.signal.aborted || error instanceof LonghaulError) throw error;
    throw new LonghaulError('provider_unavailable', 'the model stream broke off', { cause: error });
  }
  return reader.answer();
}

/** Stops the spending of an interrupted step; what was billed so far stays recorded. */
export async function cancelModelCall(call: Pick<ModelCall, 'gatewayUrl' | 'key' | 'idempotencyKey'>): Promise<void> {
  const response = await request(`${call.gatewayUrl}/v1/model-calls/cancel`, {
    method: 'POST',
    dispatcher,
    headersTimeout: 5_000,
    headers: { authorization: `Bearer ${call.key}`, 'content-type': 'application/json' },
    body: JSON.stringify({ idempotency_key: call.idempotencyKey }),
  });
  await response.body.dump();
}

async function post(call: ModelCall, path: string, body: object): Promise<Awaited<ReturnType<typeof request>>> {
  try {
    return await request(`${call.gatewayUrl}${path}`, {
      method: 'POST',
      dispatcher,
      signal: call.signal,
      headers: {
        authorization: `Bearer ${call.key}`,
        'content-type': 'application/json',
        'anthropic-version': '2023-06-01',
        'idempotency-key': call.idempotencyKey,
        traceparent: call.traceparent,
        [PROMPT_PREFIX_HEADER]: prefixHeader(call.prompt),
      },
      body: JSON.stringify(body),
    });
  } catch (error) {
    if (call.signal.aborted) throw error;
    throw new LonghaulError('provider_unavailable', 'the gateway does not answer', { cause: error });
  }
}

async function refusal(response: Awaited<ReturnType<typeof request>>): Promise<LonghaulError> {
  const text = (await response.body.text()).slice(0, 4_000);
  const parsed = parseError(text);
  const retryAfter = Number(response.headers['retry-after']);
  const waits = Number.isFinite(retryAfter) && retryAfter > 0;
  const options = waits ? { retryAfterMs: Math.min(retryAfter * 1_000, 60_000) } : {};
  // The body may be the provider's own, in words that only look like ours: the gateway says its code beside it.
  const code = response.headers['x-longhaul-error'] ?? parsed.code;
  return new LonghaulError(codeOf(response.statusCode, code), parsed.message, options);
}

function parseError(text: string): { code: string | undefined; message: string } {
  try {
    const error = (JSON.parse(text) as { error?: { code?: unknown; message?: unknown } }).error;
    return {
      code: typeof error?.code === 'string' ? error.code : undefined,
      message: typeof error?.message === 'string' ? error.message : text,
    };
  } catch {
    return { code: undefined, message: text === '' ? 'empty answer' : text };
  }
}

function codeOf(status: number, code: string | string[] | undefined): ErrorCode {
  if (typeof code === 'string' && Object.hasOwn(ERROR_CATALOGUE, code)) return code as ErrorCode;
  if (status === 429) return 'provider_rate_limited';
  if (status === 402) return 'budget_exceeded';
  if (status === 401 || status === 403) return 'provider_auth';
  if (status >= 500) return 'provider_unavailable';
  return 'provider_rejected';
}
