import { GEN_AI, OPERATION } from './genai-names.ts';
import type { Attributes, AttributeValue, FinishedSpan } from './tracing.ts';

/** OpenInference's kind of each of our operations. */
const KINDS: Record<string, string> = {
  [OPERATION.workflow]: 'CHAIN',
  [OPERATION.agent]: 'AGENT',
  [OPERATION.chat]: 'LLM',
  [OPERATION.tool]: 'TOOL',
};

/** Phoenix and others read OpenInference's names: the same facts once more, under those. */
export function withOpenInference(span: FinishedSpan): Attributes {
  const given = span.attributes;
  const operation = given[GEN_AI.operation];
  const kind = typeof operation === 'string' ? KINDS[operation] : undefined;
  if (kind === undefined) return given;
  const named: Record<string, AttributeValue | null | undefined> = {
    'openinference.span.kind': kind,
    'session.id': given[GEN_AI.conversationId],
  };
  if (kind === 'LLM') {
    const [input, output] = [given[GEN_AI.inputTokens], given[GEN_AI.outputTokens]];
    named['llm.model_name'] = given[GEN_AI.responseModel] ?? given[GEN_AI.requestModel];
    named['llm.provider'] = given[GEN_AI.provider];
    named['llm.token_count.prompt'] = input;
    named['llm.token_count.completion'] = output;
    named['llm.token_count.total'] = typeof input === 'number' && typeof output === 'number' ? input + output : null;
    named['llm.token_count.prompt_details.cache_read'] = given[GEN_AI.cacheReadTokens];
    named['llm.token_count.prompt_details.cache_write'] = given[GEN_AI.cacheCreationTokens];
    named['llm.token_count.completion_details.reasoning'] = given[GEN_AI.reasoningTokens];
    Object.assign(named, texts(given[GEN_AI.inputMessages], given[GEN_AI.outputMessages]));
  }
  if (kind === 'TOOL') {
    named['tool.name'] = given[GEN_AI.toolName];
    Object.assign(named, texts(given[GEN_AI.toolArguments], given[GEN_AI.toolResult]));
  }
  if (kind === 'AGENT') named['agent.name'] = given[GEN_AI.agentName];
  return { ...given, ...named };
}

function texts(input: Attributes[string], output: Attributes[string]): Attributes {
  return {
    'input.value': input,
    'input.mime_type': input === undefined ? undefined : 'application/json',
    'output.value': output,
    'output.mime_type': output === undefined ? undefined : 'application/json',
  };
}
