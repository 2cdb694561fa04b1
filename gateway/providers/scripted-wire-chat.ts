import { assertNever } from '../../contracts/states.ts';
import type { Frame } from './scripted-frame.ts';
import type { Reply, ReplyBlock } from './scripted-reply.ts';

/** OpenAI chat-completions: the stream. */
export function chatFrames(reply: Reply, request: Record<string, unknown>): Frame[] {
  const chunk = (delta: object, finish: string | null, isPiece = false): Frame =>
    frame(
      { ...envelope(reply, 'chat.completion.chunk'), choices: [{ index: 0, delta, finish_reason: finish }] },
      isPiece,
    );
  const options = request['stream_options'] as { include_usage?: unknown } | null | undefined;
  const usage = { ...envelope(reply, 'chat.completion.chunk'), choices: [], usage: usageOf(reply) };
  const calls: ReplyBlock[] = reply.blocks.filter((block) => block.type === 'tool_use');
  return [
    chunk({ role: 'assistant', content: '' }, null),
    ...reply.blocks.flatMap((block) =>
      deltasOf(block, calls.indexOf(block)).map(({ delta, isPiece }) => chunk(delta, null, isPiece)),
    ),
    chunk({}, finishReason(reply)),
    ...(options?.include_usage === true ? [frame(usage)] : []),
    { text: 'data: [DONE]\n\n', isPiece: false },
  ];
}

/** OpenAI chat-completions: the whole answer. */
export function chatBody(reply: Reply): object {
  const joined = (type: 'text' | 'thinking'): string | undefined =>
    reply.blocks.find((block) => block.type === type)?.pieces.join('');
  const thinking = joined('thinking');
  const calls = reply.blocks.flatMap((block) =>
    block.type === 'tool_use'
      ? [{ id: `call_${block.id}`, type: 'function', function: { name: block.name, arguments: block.pieces.join('') } }]
      : [],
  );
  const message = {
    role: 'assistant',
    content: joined('text') ?? null,
    ...(thinking === undefined ? {} : { reasoning_content: thinking }),
    ...(calls.length === 0 ? {} : { tool_calls: calls }),
  };
  return {
    ...envelope(reply, 'chat.completion'),
    choices: [{ index: 0, message, finish_reason: finishReason(reply) }],
    usage: usageOf(reply),
  };
}

function frame(value: object, isPiece = false): Frame {
  return { text: `data: ${JSON.stringify(value)}\n\n`, isPiece };
}

function envelope(reply: Reply, object: string): object {
  return { id: `chatcmpl-scripted-${reply.seed.slice(0, 24)}`, object, created: 0, model: 'scripted' };
}

function usageOf({ usage }: Reply): object {
  const input = usage.input + usage.cacheRead + usage.cacheWrite;
  return {
    prompt_tokens: input,
    completion_tokens: usage.output,
    total_tokens: input + usage.output,
    prompt_tokens_details: { cached_tokens: usage.cacheRead, cache_write_tokens: usage.cacheWrite },
  };
}

function finishReason(reply: Reply): string {
  return reply.blocks.some((block) => block.type === 'tool_use') ? 'tool_calls' : 'stop';
}

function deltasOf(block: ReplyBlock, callIndex: number): { delta: object; isPiece: boolean }[] {
  switch (block.type) {
    case 'thinking':
      return block.pieces.map((piece) => ({ delta: { reasoning_content: piece }, isPiece: true }));
    case 'text':
      return block.pieces.map((piece) => ({ delta: { content: piece }, isPiece: true }));
    case 'tool_use': {
      const start = {
        index: callIndex,
        id: `call_${block.id}`,
        type: 'function',
        function: { name: block.name, arguments: '' },
      };
      return [
        { delta: { tool_calls: [start] }, isPiece: false },
        ...block.pieces.map((piece) => ({
          delta: { tool_calls: [{ index: callIndex, function: { arguments: piece } }] },
          isPiece: true,
        })),
      ];
    }
    default:
      return assertNever(block);
  }
}
