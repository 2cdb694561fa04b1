import { assertNever } from '../../contracts/states.ts';
import { namedFrame, type Frame } from './scripted-frame.ts';
import type { Reply, ReplyBlock } from './scripted-reply.ts';

/** Anthropic Messages: the stream. */
export function messagesFrames(reply: Reply): Frame[] {
  const { usage } = reply;
  const start = { ...envelope(reply), content: [], stop_reason: null, usage: { ...usageOf(reply), output_tokens: 1 } };
  return [
    namedFrame({ type: 'message_start', message: start }),
    ...reply.blocks.flatMap(blockFrames),
    namedFrame({
      type: 'message_delta',
      delta: { stop_reason: stopReason(reply), stop_sequence: null },
      usage: { output_tokens: usage.output },
    }),
    namedFrame({ type: 'message_stop' }),
  ];
}

/** Anthropic Messages: the whole answer. */
export function messagesBody(reply: Reply): object {
  return {
    ...envelope(reply),
    content: reply.blocks.map(wholeBlock),
    stop_reason: stopReason(reply),
    usage: usageOf(reply),
  };
}

function envelope(reply: Reply): object {
  return {
    id: `msg_scripted_${reply.seed.slice(0, 24)}`,
    type: 'message',
    role: 'assistant',
    model: 'scripted',
    stop_sequence: null,
  };
}

function usageOf({ usage }: Reply): object {
  return {
    input_tokens: usage.input,
    output_tokens: usage.output,
    cache_read_input_tokens: usage.cacheRead,
    cache_creation_input_tokens: usage.cacheWrite,
  };
}

function stopReason(reply: Reply): string {
  return reply.blocks.some((block) => block.type === 'tool_use') ? 'tool_use' : 'end_turn';
}

function wholeBlock(block: ReplyBlock): object {
  switch (block.type) {
    case 'thinking':
      return { type: 'thinking', thinking: block.pieces.join(''), signature: SIGNATURE };
    case 'text':
      return { type: 'text', text: block.pieces.join('') };
    case 'tool_use':
      return { type: 'tool_use', id: `toolu_${block.id}`, name: block.name, input: block.input };
    default:
      return assertNever(block);
  }
}

const SIGNATURE = Buffer.from('scripted').toString('base64');

function blockFrames(block: ReplyBlock, index: number): Frame[] {
  const delta = (value: object, isPiece = true): Frame =>
    namedFrame({ type: 'content_block_delta', index, delta: value }, isPiece);
  const framed = (start: object, deltas: Frame[]): Frame[] => [
    namedFrame({ type: 'content_block_start', index, content_block: start }),
    ...deltas,
    namedFrame({ type: 'content_block_stop', index }),
  ];
  switch (block.type) {
    case 'thinking':
      return framed({ type: 'thinking', thinking: '', signature: '' }, [
        ...block.pieces.map((piece) => delta({ type: 'thinking_delta', thinking: piece })),
        delta({ type: 'signature_delta', signature: SIGNATURE }, false),
      ]);
    case 'text':
      return framed(
        { type: 'text', text: '' },
        block.pieces.map((piece) => delta({ type: 'text_delta', text: piece })),
      );
    case 'tool_use':
      return framed(
        { type: 'tool_use', id: `toolu_${block.id}`, name: block.name, input: {} },
        block.pieces.map((piece) => delta({ type: 'input_json_delta', partial_json: piece })),
      );
    default:
      return assertNever(block);
  }
}
