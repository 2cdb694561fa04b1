import { mcpToolName, OWN_MCP_SERVER } from '../../../contracts/mcp.ts';
import type { HarnessEvent } from '../port.ts';
import type { CopilotEvent } from './sdk.ts';

/** A call of an MCP tool that began, by its id. */
export type BegunCalls = Map<string, { tool: string; input: Record<string, unknown> }>;

/** What an event of the runtime tells; `begun` keeps calls until their ends come. */
export function eventsOf(event: CopilotEvent, begun: BegunCalls, retries: { count: number }): HarnessEvent[] {
  if (event.agentId !== undefined) return [{ type: 'activity', id: event.id }];
  switch (event.type) {
    case 'assistant.message_delta':
      return [{ type: 'text_delta', id: event.data.messageId, text: event.data.deltaContent }];
    case 'assistant.reasoning_delta':
      return [{ type: 'thinking_delta', id: event.data.reasoningId, text: event.data.deltaContent }];
    case 'assistant.message': {
      const { messageId, content } = event.data;
      return content === '' ? [] : [{ type: 'message', id: messageId, text: content }];
    }
    case 'assistant.reasoning': {
      const { reasoningId, content } = event.data;
      return content === '' ? [] : [{ type: 'thinking', id: reasoningId, text: content }];
    }
    case 'tool.execution_start': {
      const { toolCallId, toolName, arguments: input } = event.data;
      const { mcpServerName: server = OWN_MCP_SERVER, mcpToolName: tool = toolName } = event.data;
      const name = server === OWN_MCP_SERVER ? tool : mcpToolName({ server, tool });
      begun.set(toolCallId, { tool: name, input: isRecord(input) ? input : {} });
      return [{ type: 'activity', id: event.id }];
    }
    case 'tool.execution_complete': {
      const call = begun.get(event.data.toolCallId);
      // Without a result the call was broken off: nothing was delivered.
      if (call === undefined || event.data.result === undefined) return [{ type: 'activity', id: event.id }];
      return [{ type: 'platform_result_seen', id: event.data.toolCallId, ...call }];
    }
    case 'assistant.usage': {
      const { inputTokens = 0, outputTokens = 0, cacheReadTokens = 0, cacheWriteTokens = 0 } = event.data;
      const fresh = Math.max(0, inputTokens - cacheReadTokens - cacheWriteTokens);
      const usage = { inputTokens: fresh, outputTokens, cacheReadTokens, cacheWriteTokens, costMicros: null };
      return [{ type: 'usage', id: event.id, usage }];
    }
    case 'model.call_failure': {
      retries.count += 1;
      const { statusCode: httpStatus = null, errorMessage: message = 'the call failed' } = event.data;
      return [{ type: 'retry', id: event.id, attempt: retries.count, message: message.slice(0, 1_000), httpStatus }];
    }
    case 'session.compaction_complete':
      return [{ type: 'compaction', id: event.id, summary: event.data.summaryContent ?? null }];
    default:
      return [{ type: 'activity', id: event.id }];
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
