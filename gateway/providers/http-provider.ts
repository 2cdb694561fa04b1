import { assertNever } from '../../contracts/states.ts';
import { withoutPathFields } from '../routing/gemini-request.ts';
import { readRequestFacts } from '../routing/request.ts';
import { HttpCall, splitBase, storedRequest } from './http-call.ts';
import type { UpstreamPools } from './pools.ts';
import type { AnswerSink, Provider, ProviderRequest, StoredRequest } from './port.ts';

interface HttpProviderOptions {
  name: string;
  /** Whose paths and key header the upstream has. */
  api: 'anthropic' | 'openai' | 'gemini';
  baseUrl: string;
  apiKey: string | undefined;
  pools: UpstreamPools;
}

/** Passes bytes through to an HTTP API of Anthropic's, OpenAI's or Google's kind. */
export function createHttpProvider({ name, api, baseUrl, apiKey, pools }: HttpProviderOptions): Provider {
  const { origin, prefix } = splitBase(baseUrl);
  const keyHeaders = keyHeadersOf(api, apiKey);
  const stored = (request: StoredRequest, sink: AnswerSink): HttpCall => {
    const { method, path } = storedRequest(request);
    const headers = { ...request.headers, ...keyHeaders };
    return new HttpCall(pools.to(origin), { method, path: prefix + path + request.search, headers }, sink);
  };
  return {
    name,
    start: (request, sink) => {
      const path = prefix + pathOf(api, request) + request.search;
      const headers = { ...request.headers, ...keyHeaders };
      const body = request.protocol === 'gemini' ? withoutPathFields(request.body) : request.body;
      return new HttpCall(pools.to(origin), { path, headers, body }, sink);
    },
    ...(api === 'openai' && { stored }),
    close: () => Promise.resolve(),
  };
}

function keyHeadersOf(api: HttpProviderOptions['api'], apiKey: string | undefined): Record<string, string> {
  if (apiKey === undefined) return {};
  switch (api) {
    case 'anthropic':
      return { 'x-api-key': apiKey };
    case 'openai':
      return { authorization: `Bearer ${apiKey}` };
    case 'gemini':
      return { 'x-goog-api-key': apiKey };
    default:
      return assertNever(api);
  }
}

/** Model and kind of answer stand in Google's paths. */
function geminiVerbOf(request: ProviderRequest): string {
  if (request.operation === 'count_tokens') return 'countTokens';
  return readRequestFacts(request.body).stream ? 'streamGenerateContent?alt=sse' : 'generateContent';
}

/** Anthropic base URLs come without `/v1`, OpenAI ones with it: both as the vendors' SDKs want them. */
function pathOf(api: HttpProviderOptions['api'], request: ProviderRequest): string {
  const prefix = api === 'anthropic' ? '/v1' : '';
  switch (request.protocol) {
    case 'messages':
      return `${prefix}/messages${request.operation === 'count_tokens' ? '/count_tokens' : ''}`;
    case 'chat':
      return `${prefix}/chat/completions`;
    case 'responses':
      return `${prefix}/responses`;
    case 'gemini':
      return `/v1beta/models/${encodeURIComponent(request.model)}:${geminiVerbOf(request)}`;
    default:
      return assertNever(request.protocol);
  }
}
