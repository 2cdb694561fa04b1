import type { Usage } from '../../contracts/definitions.ts';
import { assertNever } from '../../contracts/states.ts';
import type { Protocol } from '../protocol.ts';

type Fields = Record<string, unknown>;

export const NO_USAGE: Usage = {
  inputTokens: 0,
  cacheReadTokens: 0,
  cacheWrite5mTokens: 0,
  cacheWrite1hTokens: 0,
  outputTokens: 0,
  reasoningTokens: 0,
};

/**
 * A protocol's usage object in our terms. Reasoning tokens are a part of the output tokens. `known` is what an
 * earlier event of the same stream said: later events repeat only some fields.
 */
export function normaliseUsage(protocol: Protocol, usage: unknown, known: Usage): Usage {
  const fields = fieldsOf(usage);
  switch (protocol) {
    case 'messages':
      return fromMessages(fields, known);
    case 'chat':
      return fromOpenai(fields, 'prompt_tokens', 'completion_tokens');
    case 'responses':
      return fromOpenai(fields, 'input_tokens', 'output_tokens');
    default:
      return assertNever(protocol);
  }
}

/** Anthropic's input tokens exclude cached ones already. */
function fromMessages(fields: Fields, known: Usage): Usage {
  const creation = fieldsOf(fields['cache_creation']);
  const written = count(fields['cache_creation_input_tokens']);
  const write1h = count(creation['ephemeral_1h_input_tokens']);
  const write5m =
    count(creation['ephemeral_5m_input_tokens']) ?? (written === undefined ? undefined : written - (write1h ?? 0));
  return {
    inputTokens: count(fields['input_tokens']) ?? known.inputTokens,
    cacheReadTokens: count(fields['cache_read_input_tokens']) ?? known.cacheReadTokens,
    cacheWrite5mTokens: write5m ?? known.cacheWrite5mTokens,
    cacheWrite1hTokens: write1h ?? known.cacheWrite1hTokens,
    outputTokens: count(fields['output_tokens']) ?? known.outputTokens,
    reasoningTokens: count(fieldsOf(fields['output_tokens_details'])['thinking_tokens']) ?? known.reasoningTokens,
  };
}

/** OpenAI's input tokens include those read from and written to the cache. */
function fromOpenai(fields: Fields, input: string, output: string): Usage {
  const inputDetails = fieldsOf(fields[`${input}_details`]);
  const outputDetails = fieldsOf(fields[`${output}_details`]);
  const read = count(inputDetails['cached_tokens']) ?? 0;
  const written = count(inputDetails['cache_write_tokens']) ?? 0;
  const writtenLong = count(fieldsOf(inputDetails['cache_write_tokens_details'])['ttl_12h_tokens']) ?? 0;
  return {
    inputTokens: Math.max(0, (count(fields[input]) ?? 0) - read - written),
    cacheReadTokens: read,
    cacheWrite5mTokens: Math.max(0, written - writtenLong),
    cacheWrite1hTokens: writtenLong,
    outputTokens: count(fields[output]) ?? 0,
    reasoningTokens: count(outputDetails['reasoning_tokens']) ?? 0,
  };
}

function fieldsOf(value: unknown): Fields {
  return typeof value === 'object' && value !== null ? (value as Fields) : {};
}

function count(value: unknown): number | undefined {
  return typeof value === 'number' && Number.isFinite(value) && value >= 0 ? Math.floor(value) : undefined;
}
