import { placeBreakpoints, type PromptCaching } from '../../contracts/caching.ts';
import type { Usage } from '../../contracts/definitions.ts';
import { LonghaulError } from '../../contracts/error-codes.ts';
import type { AssistantBlock } from '../../db/queries/turns.ts';
import type { Prompt } from './prompt.ts';
import type { LiveText, ModelAnswer } from './stream.ts';
import { NO_USAGE, parseToolInput, textOr } from './stream.ts';

const MAX_OUTPUT_TOKENS = 16_384;

/** The body of POST /v1/messages, with cache breakpoints where the agent wants them. */
export function messagesBody(model: string, prompt: Prompt, caching: PromptCaching): Record<string, unknown> {
  const body = {
    model,
    max_tokens: MAX_OUTPUT_TOKENS,
    stream: true,
    ...(prompt.tools.length === 0 ? {} : { tools: prompt.tools }),
    ...(prompt.system === '' ? {} : { system: [{ type: 'text', text: prompt.system }] }),
    messages: prompt.messages,
  };
  return caching.type === 'off' ? body : placeBreakpoints(body, caching.ttl);
}

interface OpenBlock {
  block: AssistantBlock;
  json: string;
}

/** Folds the SSE events of a Messages stream into an answer. */
export class MessagesReader {
  private readonly open = new Map<number, OpenBlock>();
  private readonly done = new Map<number, AssistantBlock>();
  private stopReason: string | null = null;
  private stopped = false;
  private usage: Usage = { ...NO_USAGE };
  private readonly live: LiveText;

  constructor(live: LiveText) {
    this.live = live;
  }

  /** `data` of one frame. Throws the provider's error when the stream carries one. */
  push(data: string): void {
    const event = JSON.parse(data) as Record<string, unknown>;
    switch (event['type']) {
      case 'message_start':
        this.readUsage((event['message'] as Record<string, unknown>)['usage']);
        return;
      case 'content_block_start':
        this.startBlock(Number(event['index']), event['content_block'] as Record<string, unknown>);
        return;
      case 'content_block_delta':
        this.delta(Number(event['index']), event['delta'] as Record<string, unknown>);
        return;
      case 'content_block_stop':
        this.stopBlock(Number(event['index']));
        return;
      case 'message_delta':
        this.stopReason =
          ((event['delta'] as Record<string, unknown>)['stop_reason'] as string | null) ?? this.stopReason;
        this.readUsage(event['usage']);
        return;
      case 'message_stop':
        this.stopped = true;
        return;
      case 'error':
        throw streamError(event['error'] as Record<string, unknown>);
      default:
    }
  }

  /** Throws `provider_unavailable` when the stream broke off before its end. */
  answer(): ModelAnswer {
    if (!this.stopped) throw new LonghaulError('provider_unavailable', 'the model stream broke off');
    const content = [...this.done.entries()].sort(([a], [b]) => a - b).map(([, block]) => block);
    return { content, usage: this.usage, stopReason: normalStop(this.stopReason) };
  }

  private startBlock(index: number, block: Record<string, unknown>): void {
    const started = openBlock(block);
    if (started !== undefined) this.open.set(index, { block: started, json: '' });
  }

  private delta(index: number, delta: Record<string, unknown>): void {
    const open = this.open.get(index);
    if (open === undefined) return;
    const { block } = open;
    if (delta['type'] === 'text_delta' && block.type === 'text') {
      block.text += textOr(delta['text']);
      this.live.onText('text', textOr(delta['text']));
    } else if (delta['type'] === 'thinking_delta' && block.type === 'thinking') {
      block.thinking += textOr(delta['thinking']);
      this.live.onText('thinking', textOr(delta['thinking']));
    } else if (delta['type'] === 'signature_delta' && block.type === 'thinking') {
      block.signature += textOr(delta['signature']);
    } else if (delta['type'] === 'input_json_delta') {
      open.json += textOr(delta['partial_json']);
    }
  }

  private stopBlock(index: number): void {
    const open = this.open.get(index);
    if (open === undefined) return;
    if (open.block.type === 'tool_use' && open.json !== '') open.block.input = parseToolInput(open.json);
    // Providers refuse an empty text block in the next request.
    if (open.block.type !== 'text' || open.block.text !== '') this.done.set(index, open.block);
    this.open.delete(index);
  }

  private readUsage(raw: unknown): void {
    if (typeof raw !== 'object' || raw === null) return;
    const usage = raw as Record<string, unknown>;
    const number = (key: string, fallback: number): number => (typeof usage[key] === 'number' ? usage[key] : fallback);
    const creation = usage['cache_creation'] as Record<string, unknown> | null | undefined;
    const write1h = creation?.['ephemeral_1h_input_tokens'];
    this.usage = {
      inputTokens: number('input_tokens', this.usage.inputTokens),
      cacheReadTokens: number('cache_read_input_tokens', this.usage.cacheReadTokens),
      cacheWrite1hTokens: typeof write1h === 'number' ? write1h : this.usage.cacheWrite1hTokens,
      cacheWrite5mTokens:
        number('cache_creation_input_tokens', this.usage.cacheWrite5mTokens) -
        (typeof write1h === 'number' ? write1h : 0),
      outputTokens: number('output_tokens', this.usage.outputTokens),
      reasoningTokens: this.usage.reasoningTokens,
    };
  }
}

function openBlock(block: Record<string, unknown>): AssistantBlock | undefined {
  switch (block['type']) {
    case 'text':
      return { type: 'text', text: textOr(block['text']) };
    case 'thinking':
      return {
        type: 'thinking',
        thinking: textOr(block['thinking']),
        signature: textOr(block['signature']),
      };
    case 'redacted_thinking':
      return { type: 'redacted_thinking', data: textOr(block['data']) };
    case 'tool_use':
      return {
        type: 'tool_use',
        id: textOr(block['id']),
        name: textOr(block['name']),
        input: (block['input'] as Record<string, unknown> | undefined) ?? {},
      };
    default:
      return undefined;
  }
}

function normalStop(reason: string | null): ModelAnswer['stopReason'] {
  if (reason === 'tool_use' || reason === 'max_tokens' || reason === 'refusal') return reason;
  return 'end_turn';
}

function streamError(error: Record<string, unknown>): LonghaulError {
  const message = textOr(error['message'], 'the provider reported an error');
  switch (error['type']) {
    case 'billing_error':
      return new LonghaulError('budget_exceeded', message);
    case 'invalid_request_error':
      return new LonghaulError('provider_rejected', message);
    case 'rate_limit_error':
      return new LonghaulError('provider_rate_limited', message);
    default:
      return new LonghaulError('provider_unavailable', message);
  }
}
