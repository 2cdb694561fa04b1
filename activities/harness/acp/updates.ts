import type { ContentBlock as AcpContent, SessionUpdate, ToolCallUpdate } from '@agentclientprotocol/sdk';
import type { ContentBlock } from '../../../contracts/definitions.ts';
import type { HarnessEvent, PermissionRequest } from '../port.ts';
import type { AcpRecipe } from './recipes.ts';

/** What is known of a tool call: the agent tells it in parts. */
interface SeenCall {
  tool: string;
  input: Record<string, unknown>;
  isOurs: boolean;
  isTold: boolean;
  isOver: boolean;
}

/** Text of the model that is not whole yet. */
interface OpenText {
  type: 'message' | 'thinking';
  id: string;
  /** As the agent names the message, when it does. */
  messageId: string | null;
  text: string;
}

const TOOL_OF_KIND: Record<string, string> = {
  execute: 'bash',
  edit: 'edit',
  read: 'read',
  delete: 'delete',
  move: 'move',
  search: 'search',
  fetch: 'web_fetch',
};
const RESULT_CHARS = 64 * 1024;

/** Makes events of a turn's updates. The same updates make the same ids: a worker that reads them again repeats events. */
export class TurnUpdates {
  /** The last whole text of the model. */
  lastText = '';
  /** A text of the model came after the last call that was refused. */
  saidSinceRefusal = true;
  readonly #prefix: string;
  readonly #recipe: AcpRecipe;
  readonly #emit: (event: HarnessEvent) => Promise<void>;
  readonly #calls = new Map<string, SeenCall>();
  #open: OpenText | undefined;
  #count = 0;

  constructor(prefix: string, recipe: AcpRecipe, emit: (event: HarnessEvent) => Promise<void>) {
    this.#prefix = prefix;
    this.#recipe = recipe;
    this.#emit = emit;
  }

  async take(update: SessionUpdate): Promise<void> {
    switch (update.sessionUpdate) {
      case 'agent_message_chunk':
        return this.#chunk('message', update.content, update.messageId ?? null);
      case 'agent_thought_chunk':
        return this.#chunk('thinking', update.content, update.messageId ?? null);
      case 'tool_call':
      case 'tool_call_update':
        return this.#toolCall(update);
      case 'plan':
        return this.#emit({
          type: 'todo',
          id: this.#nextId('plan'),
          items: update.entries.map(({ content, status }) => ({ text: content, status })),
        });
      case 'compaction_update':
        if (update.status !== 'completed') return this.#alive();
        return this.#emit({ type: 'compaction', id: update.compactionId, summary: textOf(update.summary ?? []) });
      default:
        return this.#alive();
    }
  }

  /** Tells of the call that is asked about, and how it is to be asked about; undefined for a call of ours, which the product asks about itself. */
  async asked(call: ToolCallUpdate): Promise<PermissionRequest | undefined> {
    await this.flush();
    const seen = this.#merge(call);
    if (seen.isOurs) return undefined;
    await this.#tell(call.toolCallId, seen);
    return { callId: this.#idOf(call.toolCallId), tool: seen.tool, input: seen.input };
  }

  /** The text that is open is whole. */
  async flush(): Promise<void> {
    const open = this.#open;
    this.#open = undefined;
    if (open === undefined || open.text === '') return;
    if (open.type === 'message') {
      this.lastText = open.text;
      this.saidSinceRefusal = true;
    }
    await this.#emit({ type: open.type, id: open.id, text: open.text });
  }

  async #chunk(type: OpenText['type'], content: AcpContent, messageId: string | null): Promise<void> {
    if (content.type !== 'text') return this.#alive();
    const open = this.#open;
    if (open !== undefined && (open.type !== type || open.messageId !== messageId)) await this.flush();
    this.#open ??= { type, id: this.#nextId(type), messageId, text: '' };
    this.#open.text += content.text;
    await this.#emit({
      type: type === 'message' ? 'text_delta' : 'thinking_delta',
      id: this.#open.id,
      text: content.text,
    });
  }

  async #toolCall(update: ToolCallUpdate): Promise<void> {
    await this.flush();
    const seen = this.#merge(update);
    const isOver = update.status === 'completed' || update.status === 'failed';
    if (seen.isOver || (!isOver && Object.keys(seen.input).length === 0)) return this.#alive();
    if (!seen.isOurs) await this.#tell(update.toolCallId, seen);
    if (!isOver) return this.#alive();
    seen.isOver = true;
    const id = this.#idOf(update.toolCallId);
    if (seen.isOurs) {
      await this.#emit({ type: 'platform_result_seen', id, tool: seen.tool, input: seen.input });
    } else {
      const content = resultOf(update);
      await this.#emit({ type: 'tool_result', id, content, isError: update.status === 'failed' });
    }
  }

  #merge(update: ToolCallUpdate): SeenCall {
    const ours = this.#recipe.ownTool(update);
    const seen = this.#calls.get(update.toolCallId) ?? {
      tool: ours ?? toolName(update),
      input: {},
      isOurs: ours !== undefined,
      isTold: false,
      isOver: false,
    };
    this.#calls.set(update.toolCallId, seen);
    if (isFields(update.rawInput) && Object.keys(update.rawInput).length > 0) seen.input = update.rawInput;
    // The title is all that some agents say of a call.
    else if (Object.keys(seen.input).length === 0 && !seen.isOurs && typeof update.title === 'string') {
      seen.input = seen.tool === 'bash' ? { command: update.title } : { title: update.title };
    }
    return seen;
  }

  async #tell(callId: string, seen: SeenCall): Promise<void> {
    if (seen.isTold) return;
    seen.isTold = true;
    await this.#emit({ type: 'tool_call', id: this.#idOf(callId), tool: seen.tool, input: seen.input });
  }

  #alive(): Promise<void> {
    return this.#emit({ type: 'activity', id: this.#nextId('activity') });
  }

  /** Agents count their calls anew in each process. */
  #idOf(callId: string): string {
    return `${this.#prefix}.${callId}`;
  }

  #nextId(kind: string): string {
    this.#count += 1;
    return `${this.#prefix}.${kind}.${this.#count}`;
  }
}

function toolName(update: ToolCallUpdate): string {
  return TOOL_OF_KIND[update.kind ?? 'other'] ?? update.name ?? update.kind ?? 'other';
}

function isFields(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function textOf(blocks: readonly AcpContent[]): string {
  return blocks.map((block) => (block.type === 'text' ? block.text : '')).join('');
}

/** What a call gave, as text. */
function resultOf(update: ToolCallUpdate): ContentBlock[] {
  const texts = (update.content ?? []).map((part) => {
    if (part.type === 'content') return textOf([part.content]);
    return part.type === 'diff' ? `changed ${part.path}` : '';
  });
  const joined = texts.filter((text) => text !== '').join('\n');
  const raw = typeof update.rawOutput === 'string' ? update.rawOutput : JSON.stringify(update.rawOutput ?? '');
  return [{ type: 'text', text: (joined === '' ? raw : joined).slice(0, RESULT_CHARS) }];
}
