import type { CallToolResult } from '@modelcontextprotocol/client';
import type { ContentBlock } from '../../contracts/definitions.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { storable } from '../../contracts/storable.ts';
import { within } from '../../contracts/abort.ts';
import type { ToolOutcome } from '../effects/outcome.ts';
import { excerpt } from '../effects/shorten.ts';
import type { McpConnection } from './connect.ts';
import { reasonOf } from './connect.ts';

/** Calls a tool over an open conversation. `lost`: the server may have done it, and its answer did not come. */
export async function callMcpTool(
  connection: McpConnection,
  tool: string,
  input: Record<string, unknown>,
  { timeoutMs, signal }: { timeoutMs: number; signal: AbortSignal },
): Promise<ToolOutcome> {
  const startedMs = Date.now();
  try {
    // The signal is what ends it: its end is told apart from the server's.
    const result = await within(signal, timeoutMs, (until) =>
      connection.client.callTool({ name: tool, arguments: input }, { timeout: 2 * timeoutMs, signal: until }),
    );
    return { kind: 'done', content: contentOf(result), isError: result.isError === true };
  } catch (error) {
    const failure = connection.failure();
    const isLate = Date.now() - startedMs >= timeoutMs;
    if (failure?.isSent === true || isLate || signal.aborted) {
      const reason = isLate ? `no answer within ${timeoutMs} ms` : reasonOf(error, failure);
      return { kind: 'lost', reason: `the MCP server may have done it: ${reason}` };
    }
    return { kind: 'done', content: [{ type: 'text', text: reasonOf(error, failure) }], isError: true };
  }
}

/** As the ledger holds results; no more text than of a command. */
function contentOf(result: CallToolResult): ContentBlock[] {
  const blocks = result.content.map(blockOf);
  if (blocks.length === 0 && result.structuredContent !== undefined) {
    blocks.push({ type: 'text', text: JSON.stringify(result.structuredContent) });
  }
  let leftBytes: number = LIMITS.toolOutputBytes;
  return storable(
    blocks.slice(0, LIMITS.contentBlocksPerMessage).map((block) => {
      const bytes = Buffer.from(block.type === 'text' ? block.text : '');
      const fits = bytes.length <= leftBytes;
      leftBytes -= Math.min(leftBytes, bytes.length);
      if (block.type !== 'text' || fits) return block;
      const kept = { headBytes: LIMITS.toolOutputHeadBytes, tailBytes: LIMITS.toolOutputTailBytes };
      return {
        type: 'text' as const,
        text: bytes.length > LIMITS.toolOutputBytes ? excerpt(bytes, kept, undefined) : '[left out: too much output]',
      };
    }),
  );
}

const IMAGE_TYPES = new Set(['image/png', 'image/jpeg', 'image/gif', 'image/webp']);
const IMAGE_CHARS = 1_400_000;

function blockOf(block: CallToolResult['content'][number]): ContentBlock {
  switch (block.type) {
    case 'text':
      return { type: 'text', text: block.text };
    case 'image': {
      const { data, mimeType } = block;
      if (!IMAGE_TYPES.has(mimeType) || data.length > IMAGE_CHARS)
        return note(`an image (${mimeType}) that is not shown`);
      return { type: 'image', source: { type: 'base64', media_type: mimeType, data } };
    }
    case 'resource':
      return 'text' in block.resource
        ? { type: 'text', text: block.resource.text }
        : note(`the file ${block.resource.uri}`);
    case 'resource_link':
      return note(`${block.name}: ${block.uri}`);
    default:
      return note('content of a kind that is not shown');
  }
}

function note(text: string): ContentBlock {
  return { type: 'text', text: `[${text}]` };
}
