import type { EventRow } from '../../db/queries/events.ts';
import { followingTextId, messageId, partId } from './ids.ts';
import { endedState, shownInput, textOf } from './tools.ts';
import type { MessageError, Part, Status, Todo, ToolPart } from './wire.ts';

/** What one event of the log changes for who watches. */
export type Change =
  | { kind: 'message'; message: Held }
  | { kind: 'part'; part: Part; timeMs: number }
  | { kind: 'asked'; approvalId: string }
  | { kind: 'replied'; approvalId: string; reply: 'once' | 'reject' }
  | { kind: 'status'; status: Status }
  | { kind: 'error'; error: MessageError }
  | { kind: 'todos'; todos: Todo[] }
  | { kind: 'session' }
  | { kind: 'deleted' };

export interface HeldUser {
  role: 'user';
  id: string;
  seq: number;
  createdMs: number;
  model: string | undefined;
  parts: Part[];
}

/** A turn: all that the agent said and did from one start to its end. */
export interface HeldAssistant {
  role: 'assistant';
  id: string;
  seq: number;
  createdMs: number;
  parts: Part[];
  end: { seq: number; atMs: number; finish: string; error: MessageError | undefined } | undefined;
}

export type Held = HeldUser | HeldAssistant;

/**
 * A session's log as messages and parts. It holds nothing of its own: the same events give the same ids and texts again,
 * whoever reads them and when.
 */
export class Conversation {
  readonly sessionId: string;
  readonly messages: Held[] = [];
  todos: Todo[] = [];
  private open: HeldAssistant | undefined;
  /** The event that made the newest part: text that streams now follows it. */
  private anchor = 0;
  private readonly calls = new Map<string, { part: ToolPart; messageId: string }>();
  /** Questions without an answer, by the call they are about. */
  private readonly asked = new Map<string, string | null>();
  private failure = '';

  constructor(sessionId: string) {
    this.sessionId = sessionId;
  }

  /** The part that live text belongs to now; undefined while nobody answers. */
  get liveText(): { partId: string; messageId: string } | undefined {
    if (this.open === undefined) return undefined;
    return { partId: followingTextId(this.sessionId, this.anchor), messageId: this.open.id };
  }

  /** Where a call is shown. */
  placeOf(callId: string): { messageId: string; part: ToolPart } | undefined {
    return this.calls.get(callId);
  }

  apply(event: EventRow): Change[] {
    const { type, payload } = event;
    switch (type) {
      case 'user.message':
        return this.addUser(event);
      case 'session.status_running':
        return [...this.opened(event), { kind: 'status', status: { type: 'busy' } }];
      case 'agent.message':
        return this.addText(event);
      case 'agent.tool_use':
      case 'agent.custom_tool_use':
      case 'agent.mcp_tool_use':
        return this.addCall(event);
      case 'agent.tool_result':
      case 'agent.mcp_tool_result':
      case 'agent.custom_tool_cancelled':
      case 'user.custom_tool_result':
        return this.endCall(event);
      case 'session.approval_requested':
        return this.ask(event);
      case 'user.tool_confirmation':
      case 'session.approval_decided':
        return this.reply(word(payload['approval_id']), payload['decision'] === 'allow' ? 'once' : 'reject');
      case 'session.status_rescheduled':
        return [{ kind: 'status', status: { type: 'retry', attempt: 1, message: this.failure, next: atMs(event) } }];
      case 'session.error':
        return this.fail(event);
      case 'session.status_idle':
        return this.settle(event);
      case 'session.status_terminated':
        return this.close(event, 'stop', aborted('the session has ended'));
      case 'agent.todo':
        this.todos = todosOf(payload['items']);
        return [{ kind: 'todos', todos: this.todos }];
      case 'session.updated':
      case 'session.archived':
        return [{ kind: 'session' }];
      case 'session.deleted':
        return [{ kind: 'deleted' }];
      default:
        return [];
    }
  }

  private addUser(event: EventRow): Change[] {
    const id = messageId(this.sessionId, event.seq);
    const blocks = Array.isArray(event.payload['content']) ? event.payload['content'] : [];
    const parts = blocks.map((block: unknown, index): Part => ({
      id: partId(this.sessionId, event.seq, index),
      sessionID: this.sessionId,
      messageID: id,
      type: 'text',
      text: textOf([block]),
    }));
    const { model } = event.payload;
    const message: HeldUser = {
      role: 'user',
      id,
      seq: event.seq,
      createdMs: atMs(event),
      model: typeof model === 'string' ? model : undefined,
      parts,
    };
    this.messages.push(message);
    return [{ kind: 'message', message }, ...partChanges(parts, event)];
  }

  private opened(event: EventRow): Change[] {
    if (this.open !== undefined) return [];
    const id = messageId(this.sessionId, event.seq);
    const message: HeldAssistant = {
      role: 'assistant',
      id,
      seq: event.seq,
      createdMs: atMs(event),
      parts: [{ ...this.base(id, event.seq, 0), type: 'step-start' }],
      end: undefined,
    };
    this.open = message;
    this.anchor = event.seq;
    this.messages.push(message);
    return [{ kind: 'message', message }, ...partChanges(message.parts, event)];
  }

  private base(message: string, seq: number, index: number): { id: string; sessionID: string; messageID: string } {
    return { id: partId(this.sessionId, seq, index), sessionID: this.sessionId, messageID: message };
  }

  /** Adds a part to the message that is open; whatever an agent does opens one. */
  private add(event: EventRow, make: (message: HeldAssistant) => Part): Change[] {
    const changes = this.opened(event);
    const { open } = this;
    if (open === undefined) return changes;
    const part = make(open);
    open.parts.push(part);
    this.anchor = event.seq;
    return [...changes, { kind: 'part', part, timeMs: atMs(event) }];
  }

  private addText(event: EventRow): Change[] {
    return this.add(event, (message) => ({
      ...this.base(message.id, event.seq, 0),
      id: followingTextId(this.sessionId, this.anchor),
      type: 'text',
      text: textOf(event.payload['content']),
      time: { start: atMs(event), end: atMs(event) },
    }));
  }

  private addCall(event: EventRow): Change[] {
    const { payload } = event;
    const server = payload['mcp_server_name'];
    const name = word(payload['name']);
    const input = shownInput(payload['input']);
    return this.add(event, (message) => {
      const part: ToolPart = {
        ...this.base(message.id, event.seq, 0),
        type: 'tool',
        callID: event.id,
        tool: typeof server === 'string' ? `${server}_${name}` : name,
        state:
          payload['evaluated_permission'] === 'ask'
            ? { status: 'pending', input, raw: '' }
            : { status: 'running', input, time: { start: atMs(event) } },
      };
      this.calls.set(event.id, { part, messageId: message.id });
      return part;
    });
  }

  private endCall(event: EventRow): Change[] {
    const { payload } = event;
    const callId = word(payload['tool_use_id'] ?? payload['mcp_tool_use_id'] ?? payload['custom_tool_use_id']);
    const open = [...this.asked].flatMap(([approvalId, about]) => (about === callId ? [approvalId] : []));
    const replies = open.flatMap((approvalId) => this.reply(approvalId, 'reject'));
    const call = this.calls.get(callId);
    if (call === undefined) return replies;
    const given = { content: payload['content'], isError: payload['is_error'] === true, endMs: atMs(event) };
    call.part.state = endedState(call.part.tool, call.part.state, given);
    return [...replies, { kind: 'part', part: call.part, timeMs: atMs(event) }];
  }

  private ask(event: EventRow): Change[] {
    const { payload } = event;
    const approvalId = word(payload['approval_id']);
    const callId = typeof payload['tool_use_id'] === 'string' ? payload['tool_use_id'] : null;
    this.asked.set(approvalId, callId);
    const call = callId === null ? undefined : this.calls.get(callId);
    const changes: Change[] = [];
    if (call !== undefined) {
      call.part.state = { status: 'running', input: call.part.state.input, time: { start: atMs(event) } };
      changes.push({ kind: 'part', part: call.part, timeMs: atMs(event) });
    }
    return [...changes, { kind: 'asked', approvalId }];
  }

  private reply(approvalId: string, reply: 'once' | 'reject'): Change[] {
    return this.asked.delete(approvalId) ? [{ kind: 'replied', approvalId, reply }] : [];
  }

  private fail(event: EventRow): Change[] {
    const error = (event.payload['error'] ?? {}) as { message?: unknown; retry_status?: { type?: unknown } };
    this.failure = word(error.message);
    if (error.retry_status?.type !== 'retrying') return [];
    return [{ kind: 'status', status: { type: 'retry', attempt: 1, message: this.failure, next: atMs(event) } }];
  }

  /** Waiting for a person is not the end of a turn: its clients see it as busy. */
  private settle(event: EventRow): Change[] {
    const reason = (event.payload['stop_reason'] ?? {}) as { type?: unknown; detail?: unknown };
    if (reason.type === 'requires_action') return [];
    const why = word(reason.detail ?? reason.type);
    switch (why) {
      case 'end_turn':
        return this.close(event, 'stop', undefined);
      case 'max_tokens':
        return this.close(event, 'length', undefined);
      case 'interrupted':
        return this.close(event, 'stop', aborted('the turn was interrupted'));
      case 'refusal':
        return this.close(event, 'content-filter', undefined);
      case 'context_full':
        return this.close(event, 'error', {
          name: 'ContextOverflowError',
          data: { message: this.failure || 'the conversation is too long' },
        });
      default:
        return this.close(event, 'error', { name: 'UnknownError', data: { message: this.failure || why } });
    }
  }

  private close(event: EventRow, finish: string, error: MessageError | undefined): Change[] {
    const changes = [...this.asked.keys()].flatMap((approvalId) => this.reply(approvalId, 'reject'));
    const { open } = this;
    this.open = undefined;
    this.failure = '';
    if (open !== undefined) {
      open.end = { seq: event.seq, atMs: atMs(event), finish, error };
      changes.push({ kind: 'message', message: open });
    }
    if (error !== undefined) changes.push({ kind: 'error', error });
    return [...changes, { kind: 'status', status: { type: 'idle' } }];
  }
}

function partChanges(parts: Part[], event: EventRow): Change[] {
  return parts.map((part) => ({ kind: 'part', part, timeMs: atMs(event) }));
}

function aborted(message: string): MessageError {
  return { name: 'MessageAbortedError', data: { message } };
}

function word(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

function atMs(event: EventRow): number {
  return event.createdAt.getTime();
}

function todosOf(items: unknown): Todo[] {
  if (!Array.isArray(items)) return [];
  return items.map((item: unknown) => {
    const { text, status } = (item ?? {}) as { text?: unknown; status?: unknown };
    return { content: word(text), status: word(status), priority: 'medium' };
  });
}
