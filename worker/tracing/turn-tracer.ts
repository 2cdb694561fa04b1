import type { Pool } from '../../db/pool.ts';
import type { TracedTurn } from '../../db/queries/turn-traces.ts';
import { listCutEffects, readTracedEffect, readTracedTurn } from '../../db/queries/turn-traces.ts';
import type { Logger } from '../../telemetry/logger.ts';
import type { Tracing } from '../../telemetry/tracing.ts';
import { segmentAt } from '../../telemetry/turn-segments.ts';
import type { PauseTurnArgs } from '../../workflows/activity-types.ts';
import { rootSpan, segmentSpan, toolSpan, turnSegments } from './session-spans.ts';

/** Reading for spans must not crowd out the work. */
const MAX_RUNNING = 16;

/**
 * Makes spans from the record after the activity that wrote it: what they say is what Postgres says, whichever attempt on
 * whichever worker did the work. Nothing waits for it; what is too much is dropped.
 */
export class TurnTracer {
  readonly #pool: Pool;
  readonly #tracing: Tracing;
  readonly #logger: Logger;
  readonly #running = new Set<Promise<void>>();

  constructor(pool: Pool, tracing: Tracing, logger: Logger) {
    this.#pool = pool;
    this.#tracing = tracing;
    this.#logger = logger;
  }

  turnEnded(sessionId: string, turn: number): void {
    this.#later(async () => {
      const traced = await readTracedTurn(this.#pool, sessionId, turn);
      if (traced === undefined || traced.endedAt === null) return;
      const segments = turnSegments(traced);
      for (const effect of await listCutEffects(this.#pool, sessionId, turn)) {
        const cut = { ...effect, endedAt: effect.endedAt ?? traced.endedAt };
        const segment = segmentAt(segments, effect.startedAt.getTime());
        this.#tracing.record(toolSpan(cut, traced, segment, this.#tracing.withContent));
      }
      this.#recordSegment(traced, segments.length - 1);
    });
  }

  turnPaused({ sessionId, turn, step, pause }: PauseTurnArgs): void {
    this.#later(async () => {
      const traced = await readTracedTurn(this.#pool, sessionId, turn);
      const pauses = traced?.marks.filter((mark) => mark.kind === 'paused') ?? [];
      const index = pauses.findIndex((mark) => mark.dedupeKey === `pause/${turn}/${step}/${pause}`);
      // What everybody had answered already was no pause.
      if (traced !== undefined && index >= 0) this.#recordSegment(traced, index);
    });
  }

  effectStopped(effectId: string): void {
    this.#later(async () => {
      const effect = await readTracedEffect(this.#pool, effectId);
      const traced = effect && (await readTracedTurn(this.#pool, effect.sessionId, effect.turn));
      if (effect === undefined || traced === undefined) return;
      const segment = segmentAt(turnSegments(traced), effect.startedAt.getTime());
      this.#tracing.record(toolSpan(effect, traced, segment, this.#tracing.withContent));
    });
  }

  /** Resolves when nothing is being read any more. */
  async drain(): Promise<void> {
    await Promise.allSettled(this.#running);
  }

  #recordSegment(turn: TracedTurn, index: number): void {
    const segments = turnSegments(turn);
    const segment = segments[index];
    if (segment === undefined) return;
    if (turn.turn === 1 && index === 0) this.#tracing.record(rootSpan(turn));
    this.#tracing.record(segmentSpan(turn, segments, segment));
  }

  #later(work: () => Promise<void>): void {
    if (this.#running.size >= MAX_RUNNING) {
      this.#logger.debug('spans dropped: too many are being made');
      return;
    }
    const done = work().catch((error: unknown) => this.#logger.debug({ err: error }, 'spans were not made'));
    this.#running.add(done);
    void done.finally(() => this.#running.delete(done));
  }
}
