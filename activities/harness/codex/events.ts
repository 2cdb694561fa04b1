import type { ContentBlock } from '../../../contracts/definitions.ts';
import { mcpToolName, OWN_MCP_SERVER } from '../../../contracts/mcp.ts';
import type { HarnessEvent } from '../port.ts';
import type { CodexItem, TokenUsage } from './protocol.ts';

/** Ids of items are the model's own and may come again in another turn. */
export function eventId(turnId: string, itemId: string): string {
  return `${turnId}/${itemId}`;
}

/** What an item tells when it begins. */
export function startedEvents(turnId: string, item: CodexItem): HarnessEvent[] {
  const id = eventId(turnId, item.id);
  switch (item.type) {
    case 'commandExecution':
    case 'fileChange':
    case 'webSearch':
      return [{ type: 'tool_call', id, ...callOf(item) }];
    case 'collabAgentToolCall':
      return item.tool === 'spawnAgent' ? [{ type: 'subagent', id, phase: 'started', title: item.prompt ?? '' }] : [];
    default:
      return [{ type: 'activity', id }];
  }
}

/** What an item tells when it is whole; `platformServers` are the MCP servers whose calls the workflow records. */
export function completedEvents(turnId: string, item: CodexItem, platformServers: ReadonlySet<string>): HarnessEvent[] {
  const id = eventId(turnId, item.id);
  switch (item.type) {
    case 'agentMessage':
      return item.text === '' ? [] : [{ type: 'message', id, text: item.text }];
    case 'reasoning': {
      const thought = (item.summary.length > 0 ? item.summary : item.content).join('\n\n');
      return thought === '' ? [] : [{ type: 'thinking', id, text: thought }];
    }
    case 'commandExecution':
      return [...startedEvents(turnId, item), { type: 'tool_result', id, ...commandResult(item) }];
    case 'fileChange':
      return [
        ...startedEvents(turnId, item),
        { type: 'tool_result', id, content: text(item.status), isError: item.status !== 'completed' },
      ];
    case 'webSearch':
      return [...startedEvents(turnId, item), { type: 'tool_result', id, content: text('searched'), isError: false }];
    case 'mcpToolCall':
      return mcpEvents(id, item, platformServers);
    case 'collabAgentToolCall':
      return item.tool === 'wait' || item.tool === 'closeAgent'
        ? [{ type: 'subagent', id, phase: 'ended', title: item.prompt ?? '' }]
        : [];
    case 'contextCompaction':
      return [{ type: 'compaction', id, summary: null }];
    default:
      return [{ type: 'activity', id }];
  }
}

/** A tool of codex's own. None is on; one that ran all the same is told. */
function callOf(item: CodexItem): { tool: string; input: Record<string, unknown> } {
  switch (item.type) {
    case 'commandExecution':
      return { tool: 'exec_command', input: { command: item.command, cwd: item.cwd } };
    case 'fileChange':
      return { tool: 'apply_patch', input: { changes: item.changes } };
    case 'webSearch':
      return { tool: 'web_search', input: { query: item.query ?? '' } };
    default:
      return { tool: item.type, input: {} };
  }
}

/** The server repeats the totals when nothing was used: they make the id. */
export function usageEvent(turnId: string, total: TokenUsage, last: TokenUsage): HarnessEvent {
  return {
    type: 'usage',
    id: `${turnId}/usage-${total.totalTokens}`,
    usage: {
      inputTokens: Math.max(0, last.inputTokens - last.cachedInputTokens - last.cacheWriteInputTokens),
      cacheReadTokens: last.cachedInputTokens,
      cacheWriteTokens: last.cacheWriteInputTokens,
      outputTokens: last.outputTokens,
      costMicros: null,
    },
  };
}

/** Codex has the result of one of our tools, or only knows that it did not get one. */
function mcpEvents(
  id: string,
  item: Extract<CodexItem, { type: 'mcpToolCall' }>,
  platformServers: ReadonlySet<string>,
): HarnessEvent[] {
  const input = isRecord(item.arguments) ? item.arguments : {};
  if (!platformServers.has(item.server) || item.result === null) return [{ type: 'activity', id }];
  const { server, tool } = item;
  // Under the id that it gave with the call.
  return [
    {
      type: 'platform_result_seen',
      id: item.id,
      tool: server === OWN_MCP_SERVER ? tool : mcpToolName({ server, tool }),
      input,
    },
  ];
}

function commandResult(item: Extract<CodexItem, { type: 'commandExecution' }>): {
  content: ContentBlock[];
  isError: boolean;
} {
  const said = item.aggregatedOutput ?? (item.status === 'declined' ? 'not allowed' : '');
  return { content: text(said), isError: item.status !== 'completed' || (item.exitCode ?? 0) !== 0 };
}

function text(value: string): ContentBlock[] {
  return [{ type: 'text', text: value }];
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
