import type { ContentBlock } from '../../contracts/definitions.ts';
import { LIMITS } from '../../contracts/limits.ts';
import { assertNever } from '../../contracts/states.ts';
import { storable } from '../../contracts/storable.ts';
import { withTransaction } from '../../db/pool.ts';
import { getEffect } from '../../db/queries/effects.ts';
import type { EventDraft } from '../../db/queries/events.ts';
import { appendEvents } from '../../db/queries/events.ts';
import { findHarnessCall, markDelivered, markSeen } from '../../db/queries/harness-calls.ts';
import { hasWaitingEffects } from '../../db/queries/effects.ts';
import type { SessionForTurn } from '../../db/queries/session-status.ts';
import { lockSession, setRunning } from '../../db/queries/session-status.ts';
import { lockTurn } from '../../db/queries/turns.ts';
import type { ActivityDeps } from '../deps.ts';
import { derivedId } from '../digest.ts';
import { finishEffect } from '../effects/close.ts';
import { excerpt } from '../effects/shorten.ts';
import { LivePublisher } from '../model/live-text.ts';
import { redactContent } from '../redaction.ts';
import { ownCallEventId } from './calls.ts';
import type { HarnessEvent } from './port.ts';

type OwnCall = Extract<HarnessEvent, { type: 'tool_call' }>;
type OwnResult = Extract<HarnessEvent, { type: 'tool_result' }>;

const REPORTED_CHARS = 2_000;

/**
 * Writes what a harness tells into the session's log, in order and each id once, so that a driver which attached again may
 * repeat itself. What comes after the turn's end is dropped.
 */
export class EventSink {
  private readonly deps: ActivityDeps;
  private readonly session: SessionForTurn;
  private readonly turn: number;
  private readonly signal: AbortSignal;
  private chain: Promise<void> = Promise.resolve();
  private live: { id: string; publisher: LivePublisher } | undefined;
  /** Told, and not asked for yet: a call that is asked for is told by its effect. */
  private readonly held = new Map<string, OwnCall>();

  constructor(deps: ActivityDeps, session: SessionForTurn, turn: number, signal: AbortSignal) {
    this.deps = deps;
    this.session = session;
    this.turn = turn;
    this.signal = signal;
  }

  /** Resolves when the event is recorded; previews at once. */
  async emit(event: HarnessEvent): Promise<void> {
    if (event.type === 'text_delta' || event.type === 'thinking_delta') return this.preview(event);
    if (event.type === 'activity') return;
    const done = this.chain.then(() => this.take(event));
    this.chain = done.catch(() => undefined);
    return done;
  }

  /** The harness asks before it runs this one. */
  asked(callId: string): void {
    this.held.delete(callId);
  }

  /** All that was told is written. */
  async close(): Promise<void> {
    await this.chain;
    await this.flush();
    await this.live?.publisher.close();
  }

  private preview({ type, id, text }: Extract<HarnessEvent, { text: string }>): void {
    if (this.live?.id !== id) {
      void this.live?.publisher.close();
      const ids = { 'agent.message': this.eventId('message', id), 'agent.thinking': this.eventId('thinking', id) };
      this.live = { id, publisher: new LivePublisher(this.deps.pool, this.session.id, ids) };
    }
    this.live.publisher.onText(type === 'text_delta' ? 'text' : 'thinking', storable(text));
  }

  private eventId(kind: string, id: string): string {
    return derivedId('event', `${this.session.id}/${this.turn}/harness/${kind}/${id}`);
  }

  private draft(kind: string, id: string, type: string, payload: Record<string, unknown>): EventDraft {
    const eventId = this.eventId(kind, id);
    return { id: eventId, dedupeKey: eventId, type, payload: storable(payload) };
  }

  private async take(event: Exclude<HarnessEvent, { type: 'text_delta' | 'thinking_delta' | 'activity' }>) {
    if (event.type === 'tool_call') {
      await this.flush();
      this.held.set(event.id, event);
      return;
    }
    if (event.type === 'tool_result') return this.takeResult(event);
    await this.flush();
    if (event.type === 'platform_result_seen') {
      const { id, tool, input } = event;
      const { pool } = this.deps;
      return markSeen(pool, { sessionId: this.session.id, turn: this.turn, harnessCallId: id, tool, input });
    }
    if (event.type === 'message' && this.live?.id === event.id) await this.live.publisher.close();
    const draft = this.draftOf(event);
    if (draft !== undefined) await this.append([draft]);
  }

  private draftOf(
    event: Extract<
      HarnessEvent,
      { type: 'message' | 'thinking' | 'usage' | 'retry' | 'compaction' | 'todo' | 'subagent' }
    >,
  ): EventDraft | undefined {
    const { type, id } = event;
    switch (type) {
      case 'message': {
        if (event.text === '') return undefined;
        const content = [{ type: 'text', text: event.text.slice(0, LIMITS.messageTextChars) }];
        return this.draft('message', id, 'agent.message', { content });
      }
      case 'thinking':
        return this.draft('thinking', id, 'agent.thinking', {});
      case 'usage':
        return this.draft('usage', id, 'span.harness_usage', { usage: usageOf(event) });
      case 'retry': {
        const message = event.message.slice(0, REPORTED_CHARS);
        const error = { type: 'model_overloaded_error', message, retry_status: { type: 'retrying' } };
        return this.draft('retry', id, 'session.error', { error });
      }
      case 'compaction':
        return this.draft('compaction', id, 'agent.thread_context_compacted', { summary: cut(event.summary) });
      case 'todo': {
        const items = event.items.slice(0, 200).map(({ text, status }) => ({ text: text.slice(0, 500), status }));
        return this.draft('todo', id, 'agent.todo', { items });
      }
      case 'subagent':
        return this.draft(`subagent-${event.phase}`, id, 'agent.subagent', {
          phase: event.phase,
          title: cut(event.title),
        });
      default:
        return assertNever(type);
    }
  }

  /** The end of a tool of the harness's own: of an effect when it asked, else only told. */
  private async takeResult(event: OwnResult): Promise<void> {
    const { pool } = this.deps;
    const content = await redactContent(this.deps, this.session.id, shortened(event.content), this.signal);
    const call = await findHarnessCall(pool, { sessionId: this.session.id, turn: this.turn }, event.id);
    if (call?.executor !== 'harness' || call.effectId === null) {
      await this.flush();
      const useId = ownCallEventId({ sessionId: this.session.id, turn: this.turn }, event.id);
      const payload = { tool_use_id: useId, content, is_error: event.isError };
      return this.append([this.draft('own-result', event.id, 'agent.tool_result', payload)]);
    }
    this.held.delete(event.id);
    const effect = await getEffect(pool, call.effectId);
    if (effect.state === 'started') {
      await finishEffect(this.deps, this.session, effect, {
        kind: 'done',
        content: storable(content),
        isError: event.isError,
      });
    }
    await markDelivered(pool, call.id);
  }

  /** Calls that the harness has told of and not asked for: it runs them by itself. */
  private async flush(): Promise<void> {
    const held = [...this.held.values()];
    this.held.clear();
    const at = { sessionId: this.session.id, turn: this.turn };
    await this.append(
      held.map(({ id, tool, input }) => {
        const eventId = ownCallEventId(at, id);
        const payload = { name: tool.slice(0, LIMITS.nameChars), input: shownInput(input), executor: 'harness' };
        return { id: eventId, dedupeKey: eventId, type: 'agent.tool_use', payload };
      }),
    );
  }

  private async append(drafts: EventDraft[]): Promise<void> {
    if (drafts.length === 0) return;
    await withTransaction(this.deps.pool, async (tx) => {
      await lockSession(tx, this.session.id);
      if ((await lockTurn(tx, this.session.id, this.turn)) !== 'running') return;
      // While people are asked the session says so, whatever else goes on.
      if (await hasWaitingEffects(tx, this.session.id, this.turn)) await appendEvents(tx, this.session.id, drafts);
      else await setRunning(tx, this.session.id, drafts);
    });
  }
}

function usageOf({ usage }: Extract<HarnessEvent, { type: 'usage' }>): Record<string, unknown> {
  return {
    input_tokens: usage.inputTokens,
    output_tokens: usage.outputTokens,
    cache_read_input_tokens: usage.cacheReadTokens,
    cache_creation_input_tokens: usage.cacheWriteTokens,
    cost_micros: usage.costMicros,
  };
}

function cut(text: string | null): string | null {
  return text === null ? null : text.slice(0, REPORTED_CHARS);
}

/** What a harness ran without asking is only told of: viewers need not get all of it. */
function shownInput(input: Record<string, unknown>): Record<string, unknown> {
  const sizeBytes = Buffer.byteLength(JSON.stringify(input));
  return sizeBytes <= LIMITS.messageShownBytes ? storable(input) : { omitted: `${sizeBytes} bytes of input` };
}

/** Head and tail of a long text, as of our own tools' outputs. */
function shortened(content: readonly ContentBlock[]): ContentBlock[] {
  const kept = { headBytes: LIMITS.toolOutputHeadBytes, tailBytes: LIMITS.toolOutputTailBytes };
  return content.slice(0, LIMITS.contentBlocksPerMessage).map((block) => {
    if (block.type !== 'text') return block;
    const bytes = Buffer.from(block.text);
    return bytes.length <= LIMITS.toolOutputBytes ? block : { ...block, text: excerpt(bytes, kept, undefined) };
  });
}
