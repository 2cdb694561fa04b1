import type { ContentBlock } from '../../../contracts/definitions.ts';
import { OWN_MCP_SERVER } from '../../../contracts/mcp.ts';
import type { HarnessEvent, HarnessUsage } from '../port.ts';
import { blocksOf, isSynthetic, type Block, type MessageLine, type ResultLine } from './protocol.ts';
import type { OutputLine, StreamLine, SystemLine } from './protocol.ts';

type ToolUse = Extract<Block, { type: 'tool_use' }>;
type ToolResult = Extract<Block, { type: 'tool_result' }>;

/**
 * What lines of the output mean as events. Ids are those of the model's answers and of its calls, so that a transcript read
 * again tells of the same events.
 */
export class ClaudeEvents {
  readonly #calls = new Map<string, ToolUse>();
  /** By answer: how many of its blocks came whole. */
  readonly #blocks = new Map<string, number>();
  #answerId = '';

  /** Of a line of the output, or of the transcript. */
  of(line: OutputLine): HarnessEvent[] {
    switch (line.type) {
      case 'assistant':
        return this.#answered(line);
      case 'user':
        return this.#returned(line);
      case 'stream_event':
        return this.#streamed(line);
      case 'system':
        return systemEvents(line);
      case 'result':
        return line.usage === undefined ? [] : [{ type: 'usage', id: line.uuid, usage: usageOf(line) }];
      default:
        return [{ type: 'activity', id: 'line' }];
    }
  }

  #answered(line: MessageLine): HarnessEvent[] {
    if (isSynthetic(line) || isOfSubagent(line)) return [];
    const answerId = line.message.id ?? line.uuid;
    return blocksOf(line).flatMap((block): HarnessEvent[] => {
      const index = this.#blocks.get(answerId) ?? 0;
      this.#blocks.set(answerId, index + 1);
      const id = `${answerId}.${index}`;
      switch (block.type) {
        case 'text':
          return [{ type: 'message', id, text: block.text }];
        case 'thinking':
          return [{ type: 'thinking', id, text: block.thinking }];
        case 'tool_use':
          this.#calls.set(block.id, block);
          return isPlatform(block.name)
            ? [{ type: 'activity', id }]
            : [{ type: 'tool_call', id: block.id, tool: block.name, input: block.input }];
        default:
          return [];
      }
    });
  }

  #returned(line: MessageLine): HarnessEvent[] {
    if (isOfSubagent(line)) return [];
    return blocksOf(line).flatMap((block) => (block.type === 'tool_result' ? this.#result(block) : []));
  }

  #result(block: ToolResult): HarnessEvent[] {
    const call = this.#calls.get(block.tool_use_id);
    if (call === undefined) return [];
    const { id, name, input } = call;
    if (isPlatform(name)) return [{ type: 'platform_result_seen', id, tool: platformName(name), input }];
    return [{ type: 'tool_result', id, content: contentOf(block), isError: block.is_error ?? false }];
  }

  #streamed({ event, parent_tool_use_id: parent }: StreamLine): HarnessEvent[] {
    if (typeof parent === 'string') return [];
    if (event.type === 'message_start') this.#answerId = event.message?.id ?? '';
    const id = `${this.#answerId}.${event.index ?? 0}`;
    const { delta } = event;
    if (delta?.type === 'text_delta') return [{ type: 'text_delta', id, text: delta.text ?? '' }];
    if (delta?.type === 'thinking_delta') return [{ type: 'thinking_delta', id, text: delta.thinking ?? '' }];
    return [{ type: 'activity', id }];
  }
}

function systemEvents(line: SystemLine): HarnessEvent[] {
  const id = line.uuid ?? line.subtype;
  if (line.subtype === 'compact_boundary') return [{ type: 'compaction', id, summary: null }];
  if (line.subtype !== 'api_retry') return [{ type: 'activity', id }];
  const httpStatus = line.error_status ?? null;
  return [
    { type: 'retry', id, attempt: line.attempt ?? 1, message: line.error ?? 'the model is asked again', httpStatus },
  ];
}

function isOfSubagent({ parent_tool_use_id: parent, isSidechain }: MessageLine): boolean {
  return typeof parent === 'string' || isSidechain === true;
}

/** Every tool over MCP is one of the session's, which the session's workflow tells of. */
export function isPlatform(name: string): boolean {
  return name.startsWith('mcp__');
}

/** Our own tools by their own names, those of other servers as Claude has them. */
function platformName(name: string): string {
  const prefix = `mcp__${OWN_MCP_SERVER}__`;
  return name.startsWith(prefix) ? name.slice(prefix.length) : name;
}

function contentOf({ content = [] }: ToolResult): ContentBlock[] {
  if (typeof content === 'string') return [{ type: 'text', text: content }];
  return content.map(({ type, text }) => ({ type: 'text', text: text ?? `[${type}]` }));
}

function usageOf({ usage = {} }: ResultLine): HarnessUsage {
  const count = (name: string): number => Number(usage[name] ?? 0) || 0;
  return {
    inputTokens: count('input_tokens'),
    cacheReadTokens: count('cache_read_input_tokens'),
    cacheWriteTokens: count('cache_creation_input_tokens'),
    outputTokens: count('output_tokens'),
    costMicros: null,
  };
}
