import type { CallToolResult } from '@modelcontextprotocol/server';
import type { ContentBlock } from '../../contracts/definitions.ts';
import { LonghaulError } from '../../contracts/error-codes.ts';
import type { CallExecutor } from '../../contracts/harnesses.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { assertNever } from '../../contracts/states.ts';
import { requestCall, waitForCall } from '../../temporal/tool-calls.ts';
import type { Services } from '../services.ts';
import type { McpCall } from './server.ts';
import type { HarnessCaller } from './session-token.ts';

/** One look at a call; between two the client may have gone. */
const LOOK_MS = 15_000;

/**
 * Hands a call to the session and waits for what becomes of it. The call is the session's from then on: it goes on when the
 * client hangs up, and the same call asked again is answered from the record.
 */
export async function answerCall(
  { pool, temporal }: Services,
  { sessionId }: HarnessCaller,
  call: McpCall & { executor: CallExecutor },
  signal: AbortSignal,
): Promise<CallToolResult> {
  const { tool, input, harnessCallId, executor } = call;
  const untilMs = Date.now() + LIMITS.mcpCallMs;
  try {
    const deps = { pool, temporal: temporal.client };
    const asked = await requestCall(deps, { sessionId, executor, tool, input, harnessCallId }, signal);
    for (;;) {
      const answer = await waitForCall(pool, asked, { waitMs: LOOK_MS, signal });
      switch (answer.kind) {
        case 'pending':
          if (Date.now() < untilMs) break;
          return failed('It is not done yet. Call it again with the same arguments to wait on.');
        case 'result':
          return { content: answer.content.map(mcpContent), isError: answer.isError };
        case 'denied':
          return failed(answer.message);
        case 'over':
          return failed('The turn is over; this call is not answered any more.');
        case 'allowed':
          throw new LonghaulError('internal', 'a call of the platform was given to the harness to run');
        default:
          assertNever(answer);
      }
    }
  } catch (error) {
    return explained(error);
  }
}

/** What the model should read is its answer; the rest is the server's failure. */
function explained(error: unknown): CallToolResult {
  if (error instanceof LonghaulError && !error.retryable && error.status < 500) return failed(error.message);
  throw error;
}

export function failed(text: string): CallToolResult {
  return { content: [{ type: 'text', text }], isError: true };
}

type McpContent = CallToolResult['content'][number];

function mcpContent(block: ContentBlock): McpContent {
  const { source } = block.type === 'text' ? { source: null } : block;
  if (block.type === 'text') return { type: 'text', text: block.text };
  if (source === null || source.type === 'url') return { type: 'text', text: `[${block.type}: ${source?.url ?? ''}]` };
  if (source.type === 'text') return { type: 'text', text: source.data };
  if (block.type === 'image') return { type: 'image', data: source.data, mimeType: source.media_type };
  const uri = 'longhaul:document';
  return { type: 'resource', resource: { uri, blob: source.data, mimeType: source.media_type } };
}
