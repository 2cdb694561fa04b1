import { assertNever } from '../../contracts/states.ts';
import type { Frame } from './scripted-frame.ts';
import type { Reply, ReplyBlock } from './scripted-reply.ts';

/** Gemini's API: the stream. What a call is given comes whole, never in pieces. */
export function geminiFrames(reply: Reply): Frame[] {
  return [
    ...reply.blocks.flatMap((block) => partsOf(block).map((part) => frame(chunk(reply, [part]), true))),
    frame(chunk(reply, [{ text: '' }], 'STOP')),
  ];
}

/** Gemini's API: the whole answer. */
export function geminiBody(reply: Reply): object {
  return chunk(
    reply,
    reply.blocks.flatMap((block) => partsOf(joined(block))),
    'STOP',
  );
}

function chunk({ seed, usage }: Reply, parts: object[], finishReason?: string): object {
  const prompt = usage.input + usage.cacheRead + usage.cacheWrite;
  const candidate = { content: { parts, role: 'model' }, index: 0 };
  return {
    candidates: [finishReason === undefined ? candidate : { ...candidate, finishReason }],
    usageMetadata: {
      promptTokenCount: prompt,
      ...(usage.cacheRead === 0 ? {} : { cachedContentTokenCount: usage.cacheRead }),
      // Known at the end only.
      ...(finishReason === undefined ? {} : { candidatesTokenCount: usage.output }),
      totalTokenCount: finishReason === undefined ? prompt : prompt + usage.output,
    },
    modelVersion: 'scripted',
    responseId: `scripted-${seed.slice(0, 24)}`,
  };
}

function frame(value: object, isPiece = false): Frame {
  return { text: `data: ${JSON.stringify(value)}\r\n\r\n`, isPiece };
}

function joined(block: ReplyBlock): ReplyBlock {
  return { ...block, pieces: [block.pieces.join('')] };
}

function partsOf(block: ReplyBlock): object[] {
  switch (block.type) {
    case 'thinking':
      return block.pieces.map((text) => ({ text, thought: true }));
    case 'text':
      return block.pieces.map((text) => ({ text }));
    case 'tool_use':
      return [{ functionCall: { id: `call_${block.id}`, name: block.name, args: block.input } }];
    default:
      return assertNever(block);
  }
}
