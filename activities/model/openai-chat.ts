import type { ContentBlock, Usage } from '../../contracts/definitions.ts';
import { LonghaulError } from '../../contracts/error-codes.ts';
import type { AssistantBlock } from '../../db/queries/turns.ts';
import type { Prompt, PromptMessage, ToolResultBlock } from './prompt.ts';
import type { LiveText, ModelAnswer } from './stream.ts';
import { NO_USAGE, parseToolInput, textOr } from './stream.ts';

/** The body of POST /v1/chat/completions. */
export function chatBody(model: string, prompt: Prompt): Record<string, unknown> {
  return {
    model,
    stream: true,
    stream_options: { include_usage: true },
    ...(prompt.tools.length === 0
      ? {}
      : {
          tools: prompt.tools.map((tool) => ({
            type: 'function',
            function: { name: tool.name, description: tool.description, parameters: tool.input_schema },
          })),
        }),
    messages: [
      ...(prompt.system === '' ? [] : [{ role: 'system', content: prompt.system }]),
      ...prompt.messages.flatMap(chatMessages),
    ],
  };
}

function chatMessages(message: PromptMessage): object[] {
  if (message.role === 'assistant') return [assistantMessage(message.content)];
  const results = message.content.filter((block): block is ToolResultBlock => block.type === 'tool_result');
  const parts = message.content.filter((block): block is ContentBlock => block.type !== 'tool_result');
  return [
    ...results.map((block) => ({ role: 'tool', tool_call_id: block.tool_use_id, content: plainText(block.content) })),
    ...(parts.length === 0 ? [] : [{ role: 'user', content: parts.map(chatPart) }]),
  ];
}

function assistantMessage(content: AssistantBlock[]): object {
  const text = content.flatMap((block) => (block.type === 'text' ? [block.text] : [])).join('\n');
  const calls = content.flatMap((block) =>
    block.type === 'tool_use'
      ? [{ id: block.id, type: 'function', function: { name: block.name, arguments: JSON.stringify(block.input) } }]
      : [],
  );
  return {
    role: 'assistant',
    content: text === '' ? null : text,
    ...(calls.length === 0 ? {} : { tool_calls: calls }),
  };
}

function plainText(content: ContentBlock[]): string {
  return content.map((block) => (block.type === 'text' ? block.text : `[${block.type}]`)).join('\n');
}

function chatPart(block: ContentBlock): object {
  if (block.type === 'text') return { type: 'text', text: block.text };
  if (block.type === 'image') {
    const url =
      block.source.type === 'url' ? block.source.url : `data:${block.source.media_type};base64,${block.source.data}`;
    return { type: 'image_url', image_url: { url } };
  }
  return { type: 'text', text: block.source.type === 'text' ? block.source.data : `[document ${block.title ?? ''}]` };
}

/** Folds the chunks of a chat-completions stream into an answer. */
export class ChatReader {
  private text = '';
  private readonly calls = new Map<number, { id: string; name: string; json: string }>();
  private finish: string | null = null;
  private usage: Usage = { ...NO_USAGE };
  private readonly live: LiveText;

  constructor(live: LiveText) {
    this.live = live;
  }

  push(data: string): void {
    if (data === '[DONE]') return;
    const chunk = JSON.parse(data) as Record<string, unknown>;
    const error = chunk['error'] as Record<string, unknown> | undefined;
    if (error !== undefined) throw chatError(error);
    this.readUsage(chunk['usage']);
    const choice = (chunk['choices'] as Record<string, unknown>[] | undefined)?.[0];
    if (choice === undefined) return;
    this.finish = (choice['finish_reason'] as string | null | undefined) ?? this.finish;
    const delta = (choice['delta'] as Record<string, unknown> | undefined) ?? {};
    if (typeof delta['content'] === 'string' && delta['content'] !== '') {
      this.text += delta['content'];
      this.live.onText('text', delta['content']);
    }
    for (const call of (delta['tool_calls'] as Record<string, unknown>[] | undefined) ?? []) this.readCall(call);
  }

  answer(): ModelAnswer {
    if (this.finish === null) throw new LonghaulError('provider_unavailable', 'the model stream broke off');
    const calls = [...this.calls.entries()].sort(([a], [b]) => a - b);
    const content: AssistantBlock[] = [
      ...(this.text === '' ? [] : [{ type: 'text' as const, text: this.text }]),
      ...calls.map(([, call]) => ({
        type: 'tool_use' as const,
        id: call.id,
        name: call.name,
        input: parseToolInput(call.json),
      })),
    ];
    const stopReason = calls.length > 0 ? 'tool_use' : stopOf(this.finish);
    return { content, usage: this.usage, stopReason };
  }

  private readCall(call: Record<string, unknown>): void {
    const index = Number(call['index'] ?? 0);
    const fn = (call['function'] as Record<string, unknown> | undefined) ?? {};
    const known = this.calls.get(index) ?? { id: '', name: '', json: '' };
    this.calls.set(index, {
      id: known.id === '' ? textOr(call['id'], `call_${index}`) : known.id,
      name: known.name + textOr(fn['name']),
      json: known.json + textOr(fn['arguments']),
    });
  }

  private readUsage(raw: unknown): void {
    if (typeof raw !== 'object' || raw === null) return;
    const usage = raw as Record<string, unknown>;
    const cached = numberOrZero(
      (usage['prompt_tokens_details'] as Record<string, unknown> | undefined)?.['cached_tokens'],
    );
    const details = usage['completion_tokens_details'] as Record<string, unknown> | undefined;
    this.usage = {
      ...NO_USAGE,
      // OpenAI counts cached tokens as input; ours does not.
      inputTokens: numberOrZero(usage['prompt_tokens']) - cached,
      cacheReadTokens: cached,
      outputTokens: numberOrZero(usage['completion_tokens']),
      reasoningTokens: numberOrZero(details?.['reasoning_tokens']),
    };
  }
}

function stopOf(finish: string): ModelAnswer['stopReason'] {
  if (finish === 'length') return 'max_tokens';
  return finish === 'content_filter' ? 'refusal' : 'end_turn';
}

function chatError(error: Record<string, unknown>): LonghaulError {
  const message = textOr(error['message'], 'the provider reported an error');
  if (error['code'] === 'budget_exceeded') return new LonghaulError('budget_exceeded', message);
  if (error['type'] === 'invalid_request_error') return new LonghaulError('provider_rejected', message);
  return new LonghaulError('provider_unavailable', message);
}

function numberOrZero(value: unknown): number {
  return typeof value === 'number' ? value : 0;
}
