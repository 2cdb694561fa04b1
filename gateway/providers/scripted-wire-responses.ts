import { assertNever } from '../../contracts/states.ts';
import { namedFrame, type Frame } from './scripted-frame.ts';
import type { Reply, ReplyBlock } from './scripted-reply.ts';

type Event = { type: string } & Record<string, unknown>;
interface Emitted {
  event: Event;
  isPiece?: boolean;
}

/** OpenAI Responses: the stream. */
export function responsesFrames(reply: Reply): Frame[] {
  const open = { ...envelope(reply), status: 'in_progress', output: [], usage: null };
  const emitted: Emitted[] = [
    { event: { type: 'response.created', response: open } },
    { event: { type: 'response.in_progress', response: open } },
    ...reply.blocks.flatMap((block, index) => itemEvents(reply, block, index)),
    { event: { type: 'response.completed', response: responsesBody(reply) } },
  ];
  return emitted.map(({ event, isPiece }, index) => namedFrame({ ...event, sequence_number: index }, isPiece));
}

/** OpenAI Responses: the whole answer. */
export function responsesBody(reply: Reply): object {
  const { usage } = reply;
  const input = usage.input + usage.cacheRead + usage.cacheWrite;
  return {
    ...envelope(reply),
    status: 'completed',
    output: reply.blocks.map((block, index) => wholeItem(reply, block, index)),
    usage: {
      input_tokens: input,
      input_tokens_details: { cached_tokens: usage.cacheRead, cache_write_tokens: usage.cacheWrite },
      output_tokens: usage.output,
      output_tokens_details: { reasoning_tokens: 0 },
      total_tokens: input + usage.output,
    },
  };
}

function envelope(reply: Reply): object {
  return {
    id: `resp_scripted_${reply.seed.slice(0, 24)}`,
    object: 'response',
    created_at: 0,
    model: 'scripted',
    error: null,
    incomplete_details: null,
    instructions: null,
    metadata: {},
    parallel_tool_calls: true,
    tool_choice: 'auto',
    tools: [],
  };
}

function itemId(reply: Reply, index: number): string {
  return `item_${reply.seed.slice(0, 20)}_${index}`;
}

function wholeItem(reply: Reply, block: ReplyBlock, index: number): Record<string, unknown> {
  const id = itemId(reply, index);
  const text = block.pieces.join('');
  switch (block.type) {
    case 'thinking':
      return { type: 'reasoning', id, summary: [summaryPart(text)] };
    case 'text':
      return { type: 'message', id, status: 'completed', role: 'assistant', content: [textPart(text)] };
    case 'tool_use': {
      const { kind, namespace } = block.tool;
      const place = { id, status: 'completed', call_id: `call_${block.id}`, name: block.name };
      const named = namespace === undefined ? place : { ...place, namespace };
      return kind === 'custom'
        ? { type: 'custom_tool_call', ...named, input: customInput(block) }
        : { type: 'function_call', ...named, arguments: text };
    }
    default:
      return assertNever(block);
  }
}

function summaryPart(text: string): object {
  return { type: 'summary_text', text };
}

function textPart(text: string): object {
  return { type: 'output_text', text, annotations: [] };
}

/** A custom tool takes free text: the `input` field of the script's input if it is text, else its JSON. */
function customInput(block: Extract<ReplyBlock, { type: 'tool_use' }>): string {
  const text = block.input['input'];
  return typeof text === 'string' ? text : block.pieces.join('');
}

function itemEvents(reply: Reply, block: ReplyBlock, index: number): Emitted[] {
  const item = wholeItem(reply, block, index);
  const place = { item_id: item['id'], output_index: index };
  const framed = (empty: object, inner: Emitted[]): Emitted[] => [
    { event: { type: 'response.output_item.added', output_index: index, item: { ...item, ...empty } } },
    ...inner,
    { event: { type: 'response.output_item.done', output_index: index, item } },
  ];
  switch (block.type) {
    case 'thinking':
      return framed({ summary: [] }, thinkingEvents(block.pieces, place));
    case 'text':
      return framed({ status: 'in_progress', content: [] }, textEvents(block.pieces, place));
    case 'tool_use':
      return block.tool.kind === 'custom'
        ? framed({ status: 'in_progress', input: '' }, customEvents(customInput(block), place))
        : framed({ status: 'in_progress', arguments: '' }, functionEvents(block, place));
    default:
      return assertNever(block);
  }
}

function thinkingEvents(pieces: string[], place: object): Emitted[] {
  const at = { ...place, summary_index: 0 };
  const text = pieces.join('');
  return [
    { event: { type: 'response.reasoning_summary_part.added', ...at, part: summaryPart('') } },
    ...deltas('response.reasoning_summary_text.delta', pieces, at),
    { event: { type: 'response.reasoning_summary_text.done', ...at, text } },
    { event: { type: 'response.reasoning_summary_part.done', ...at, part: summaryPart(text) } },
  ];
}

function textEvents(pieces: string[], place: object): Emitted[] {
  const at = { ...place, content_index: 0 };
  const text = pieces.join('');
  return [
    { event: { type: 'response.content_part.added', ...at, part: textPart('') } },
    ...deltas('response.output_text.delta', pieces, at),
    { event: { type: 'response.output_text.done', ...at, text } },
    { event: { type: 'response.content_part.done', ...at, part: textPart(text) } },
  ];
}

function functionEvents(block: Extract<ReplyBlock, { type: 'tool_use' }>, place: object): Emitted[] {
  const done = { ...place, name: block.name, arguments: block.pieces.join('') };
  return [
    ...deltas('response.function_call_arguments.delta', block.pieces, place),
    { event: { type: 'response.function_call_arguments.done', ...done } },
  ];
}

function customEvents(input: string, place: object): Emitted[] {
  return [
    ...deltas('response.custom_tool_call_input.delta', [input], place),
    { event: { type: 'response.custom_tool_call_input.done', ...place, input } },
  ];
}

function deltas(type: string, pieces: string[], place: object): Emitted[] {
  return pieces.map((delta) => ({ event: { type, ...place, delta }, isPiece: true }));
}
