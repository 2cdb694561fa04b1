import type { Usage } from '../../contracts/definitions.ts';
import { assertNever } from '../../contracts/states.ts';
import type { Protocol } from '../protocol.ts';

/** A JSON object of a provider. */
export type Fields = Record<string, unknown>;

export const NO_USAGE: Usage = {
  inputTokens: 0,
  cacheReadTokens: 0,
  cacheWrite5mTokens: 0,
  cacheWrite1hTokens: 0,
  outputTokens: 0,
  reasoningTokens: 0,
};

/** What is known of a usage object when more of it comes: later events of a stream repeat only some of the fields. */
export function mergeUsage(known: Fields, said: unknown): Fields {
  const merged = { ...known };
  for (const [name, value] of Object.entries(fieldsOf(said))) {
    if (value !== null && value !== undefined) merged[name] = value;
  }
  return merged;
}

/** A protocol's usage object in our terms: no token is in two fields, but reasoning ones are output tokens, too. */
export function normaliseUsage(protocol: Protocol, fields: Fields): Usage {
  switch (protocol) {
    case 'messages':
      return fromMessages(fields);
    case 'chat':
      return fromOpenai(fields, 'prompt_tokens', 'completion_tokens');
    case 'responses':
      return fromOpenai(fields, 'input_tokens', 'output_tokens');
    case 'gemini':
      return fromGemini(fields);
    default:
      return assertNever(protocol);
  }
}

/** What Bedrock says at the end of every stream, whatever the model said itself. */
export function fromBedrockMetrics(metrics: unknown): Usage {
  const fields = fieldsOf(metrics);
  return {
    ...NO_USAGE,
    inputTokens: count(fields['inputTokenCount']) ?? 0,
    cacheReadTokens: count(fields['cacheReadInputTokenCount']) ?? 0,
    cacheWrite5mTokens: count(fields['cacheWriteInputTokenCount']) ?? 0,
    outputTokens: count(fields['outputTokenCount']) ?? 0,
  };
}

/** Anthropic's input tokens exclude cached ones already. Work done beside the answer is billed, but only listed. */
function fromMessages(fields: Fields): Usage {
  let usage = fromIteration(fields);
  const iterations = fields['iterations'];
  for (const entry of Array.isArray(iterations) ? (iterations as unknown[]) : []) {
    const iteration = fieldsOf(entry);
    const type = iteration['type'];
    if (type === 'compaction' || type === 'advisor_message') usage = addUp(usage, fromIteration(iteration));
  }
  const reasoning = count(fieldsOf(fields['output_tokens_details'])['thinking_tokens']) ?? 0;
  const searches = count(fieldsOf(fields['server_tool_use'])['web_search_requests']) ?? 0;
  return { ...usage, reasoningTokens: reasoning, ...(searches === 0 ? {} : { webSearches: searches }) };
}

function fromIteration(fields: Fields): Usage {
  const creation = fieldsOf(fields['cache_creation']);
  const written = count(fields['cache_creation_input_tokens']) ?? 0;
  const write1h = count(creation['ephemeral_1h_input_tokens']) ?? 0;
  return {
    ...NO_USAGE,
    inputTokens: count(fields['input_tokens']) ?? 0,
    cacheReadTokens: count(fields['cache_read_input_tokens']) ?? 0,
    cacheWrite5mTokens: count(creation['ephemeral_5m_input_tokens']) ?? Math.max(0, written - write1h),
    cacheWrite1hTokens: write1h,
    outputTokens: count(fields['output_tokens']) ?? 0,
  };
}

function addUp(a: Usage, b: Usage): Usage {
  return {
    inputTokens: a.inputTokens + b.inputTokens,
    cacheReadTokens: a.cacheReadTokens + b.cacheReadTokens,
    cacheWrite5mTokens: a.cacheWrite5mTokens + b.cacheWrite5mTokens,
    cacheWrite1hTokens: a.cacheWrite1hTokens + b.cacheWrite1hTokens,
    outputTokens: a.outputTokens + b.outputTokens,
    reasoningTokens: a.reasoningTokens + b.reasoningTokens,
  };
}

/** OpenAI's input tokens include those read from and written to the cache; so do those of its imitators. */
function fromOpenai(fields: Fields, input: string, output: string): Usage {
  const inputDetails = fieldsOf(fields[`${input}_details`]);
  const outputDetails = fieldsOf(fields[`${output}_details`]);
  // Second names: DeepSeek, Moonshot, and proxies that speak of Anthropic's caches.
  const read =
    count(inputDetails['cached_tokens']) ??
    count(fields['prompt_cache_hit_tokens']) ??
    count(fields['cached_tokens']) ??
    count(fields['cache_read_input_tokens']) ??
    0;
  const written = count(inputDetails['cache_write_tokens']) ?? count(fields['cache_creation_input_tokens']) ?? 0;
  const writtenLong = count(fieldsOf(inputDetails['cache_write_tokens_details'])['ttl_12h_tokens']) ?? 0;
  const inputTokens = count(fields[input]) ?? 0;
  const outputTokens = count(fields[output]) ?? 0;
  const reasoningTokens = count(outputDetails['reasoning_tokens']) ?? 0;
  // Some count thoughts in the total only (xAI, Gemini): they are billed as output all the same.
  const hiddenTokens = Math.max(0, (count(fields['total_tokens']) ?? 0) - inputTokens - outputTokens);
  return {
    inputTokens: Math.max(0, inputTokens - read - written),
    cacheReadTokens: read,
    cacheWrite5mTokens: Math.max(0, written - writtenLong),
    cacheWrite1hTokens: writtenLong,
    outputTokens: outputTokens + hiddenTokens,
    reasoningTokens: Math.max(reasoningTokens, hiddenTokens),
  };
}

/** Google's prompt includes what was read from a cache; thoughts, and what its own tools put in, come beside. */
function fromGemini(fields: Fields): Usage {
  const tokens = (name: string): number => count(fields[name]) ?? 0;
  const cached = tokens('cachedContentTokenCount');
  const thoughts = tokens('thoughtsTokenCount');
  return {
    ...NO_USAGE,
    inputTokens: Math.max(0, tokens('promptTokenCount') - cached) + tokens('toolUsePromptTokenCount'),
    cacheReadTokens: cached,
    outputTokens: tokens('candidatesTokenCount') + thoughts,
    reasoningTokens: thoughts,
  };
}

export function fieldsOf(value: unknown): Fields {
  return typeof value === 'object' && value !== null ? (value as Fields) : {};
}

/** Below 2^53 / 1000, so that sums and prices of any number of calls stay exact. */
const MAX_COUNT = 9_000_000_000_000;

function count(value: unknown): number | undefined {
  return typeof value === 'number' && value >= 0 && value <= MAX_COUNT ? Math.floor(value) : undefined;
}
