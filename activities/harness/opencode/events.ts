import { createHash } from 'node:crypto';
import type { HarnessEvent } from '../port.ts';
import { toolPrefix } from './settings.ts';
import type { Message, MessageInfo, OpenEvent, Part, SessionStatus, Todo, ToolState } from './wire.ts';

type Tool = Extract<Part, { type: 'tool' }>;

/** Makes our events of OpenCode's, for one session and the messages behind the one that was sent. */
export class EventReader {
  readonly #prefixes: string[];
  readonly #sessionId: string;
  #after: string;
  readonly #roles = new Map<string, MessageInfo>();
  readonly #kinds = new Map<string, Part['type']>();
  readonly #children = new Map<string, string>();

  constructor(sessionId: string, servers: readonly string[], after: string) {
    this.#sessionId = sessionId;
    this.#prefixes = servers.map(toolPrefix);
    this.#after = after;
  }

  /** What is recorded of a conversation: the same ids as the stream had. */
  ofHistory(messages: readonly Message[]): HarnessEvent[] {
    return messages.flatMap(({ info, parts }) => {
      this.#roles.set(info.id, info);
      const events = parts.flatMap((part) => this.#ofPart(part));
      return [...events, ...compactionOf(info, parts)];
    });
  }

  ofEvent(event: OpenEvent): HarnessEvent[] {
    switch (event.type) {
      case 'message.updated':
        return this.#ofMessage(event.properties.info);
      case 'message.part.updated':
        return event.properties.part.sessionID === this.#sessionId
          ? this.#ofPart(event.properties.part)
          : this.#alive();
      case 'message.part.delta':
        return this.#ofDelta(event.properties);
      case 'session.status':
        return event.properties.sessionID === this.#sessionId ? retryOf(event.properties.status, this.#sessionId) : [];
      case 'todo.updated':
        return event.properties.sessionID === this.#sessionId ? [todoEvent(event.properties.todos)] : [];
      case 'session.created':
        return this.#ofChild(event.properties.info);
      case 'session.idle':
        return this.#ofChildEnd(event.properties.sessionID);
      default:
        return [];
    }
  }

  #alive(): HarnessEvent[] {
    return [{ type: 'activity', id: this.#sessionId }];
  }

  #ofMessage(info: MessageInfo): HarnessEvent[] {
    if (info.sessionID !== this.#sessionId) return [];
    this.#roles.set(info.id, info);
    return this.#alive();
  }

  #isOurs(messageId: string): boolean {
    const info = this.#roles.get(messageId);
    return info !== undefined && info.role === 'assistant' && info.id > this.#after;
  }

  #ofDelta(delta: Extract<OpenEvent, { type: 'message.part.delta' }>['properties']): HarnessEvent[] {
    if (delta.sessionID !== this.#sessionId) return this.#alive();
    if (delta.field !== 'text' || !this.#isOurs(delta.messageID) || this.#isSummary(delta.messageID))
      return this.#alive();
    const type = this.#kinds.get(delta.partID) === 'reasoning' ? 'thinking_delta' : 'text_delta';
    return [{ type, id: delta.partID, text: delta.delta }];
  }

  #isSummary(messageId: string): boolean {
    return this.#roles.get(messageId)?.summary === true;
  }

  #ofPart(part: Part): HarnessEvent[] {
    this.#kinds.set(part.id, part.type);
    if (!this.#isOurs(part.messageID)) return [];
    switch (part.type) {
      case 'text':
      case 'reasoning': {
        if (part.time?.end === undefined || part.text === '' || this.#isSummary(part.messageID)) return this.#alive();
        return [{ type: part.type === 'text' ? 'message' : 'thinking', id: part.id, text: part.text }];
      }
      case 'tool':
        return this.#ofTool(part);
      case 'step-finish':
        return [{ type: 'usage', id: part.id, usage: usageOf(part.tokens) }];
      default:
        return this.#alive();
    }
  }

  #ofTool({ id, callID, tool, state }: Tool): HarnessEvent[] {
    const isOver = state.status === 'completed' || state.status === 'error';
    const prefix = this.#prefixes.find((each) => tool.startsWith(each));
    if (prefix !== undefined) {
      if (!isOver || wasInterrupted(state)) return this.#alive();
      return [{ type: 'platform_result_seen', id, tool: tool.slice(prefix.length), input: state.input ?? {} }];
    }
    if (state.status === 'pending') return this.#alive();
    const call: HarnessEvent = { type: 'tool_call', id: callID, tool, input: state.input ?? {} };
    if (!isOver) return [call];
    const isError = state.status === 'error';
    const text = (isError ? state.error : state.output) ?? '';
    return [call, { type: 'tool_result', id: callID, content: [{ type: 'text', text }], isError }];
  }

  #ofChild(info: { id: string; parentID?: string; title: string }): HarnessEvent[] {
    if (info.parentID !== this.#sessionId) return [];
    this.#children.set(info.id, info.title);
    return [{ type: 'subagent', id: `${info.id}/started`, phase: 'started', title: info.title }];
  }

  #ofChildEnd(sessionId: string): HarnessEvent[] {
    const title = this.#children.get(sessionId);
    return title === undefined ? [] : [{ type: 'subagent', id: `${sessionId}/ended`, phase: 'ended', title }];
  }
}

/** OpenCode closes calls that it gave up; the tool's result never reached it. */
function wasInterrupted(state: ToolState): boolean {
  return state.status === 'error' && /aborted|interrupted/i.test(state.error ?? '');
}

function usageOf(
  tokens: Extract<Part, { type: 'step-finish' }>['tokens'],
): Extract<HarnessEvent, { type: 'usage' }>['usage'] {
  return {
    inputTokens: tokens.input,
    cacheReadTokens: tokens.cache.read,
    cacheWriteTokens: tokens.cache.write,
    outputTokens: tokens.output + tokens.reasoning,
    costMicros: null,
  };
}

function retryOf(status: SessionStatus, sessionId: string): HarnessEvent[] {
  if (status.type !== 'retry') return [{ type: 'activity', id: sessionId }];
  const { attempt, message, next } = status;
  return [
    {
      type: 'retry',
      id: `${sessionId}/${next}`,
      attempt,
      message: message.slice(0, 500),
      httpStatus: statusIn(message),
    },
  ];
}

/** OpenCode tells the status of a call that it repeats in words only. */
function statusIn(message: string): number | null {
  if (/rate.?limit|too many requests|\b429\b/i.test(message)) return 429;
  const found = /\b([45]\d\d)\b/.exec(message)?.[1];
  return found === undefined ? null : Number(found);
}

function compactionOf(info: MessageInfo, parts: readonly Part[]): HarnessEvent[] {
  if (info.role !== 'assistant' || info.summary !== true || info.time.completed === undefined) return [];
  const summary = parts.flatMap((part) => (part.type === 'text' ? [part.text] : [])).join('\n');
  return [{ type: 'compaction', id: info.id, summary: summary === '' ? null : summary }];
}

type TodoItem = Extract<HarnessEvent, { type: 'todo' }>['items'][number];

function todoEvent(todos: readonly Todo[]): HarnessEvent {
  const items = todos.map(({ content, status }): TodoItem => {
    if (status === 'completed' || status === 'in_progress') return { text: content, status };
    return { text: content, status: 'pending' };
  });
  const id = createHash('sha256').update(JSON.stringify(items)).digest('hex').slice(0, 32);
  return { type: 'todo', id, items };
}
