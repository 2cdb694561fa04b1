import type { BudgetEventKind } from '../../contracts/budgets.ts';
import { withTransaction, type Pool } from '../../db/pool.ts';
import { insertBudgetEvent, listChangedWindows, type BudgetEventDraft } from '../../db/queries/budget-events.ts';
import type { BudgetWindow } from '../../db/queries/budget-slices.ts';
import { getBudget, type BudgetRow } from '../../db/queries/budgets.ts';
import { appendEvents } from '../../db/queries/events.ts';
import { findSession } from '../../db/queries/sessions.ts';
import { lockSession } from '../../db/queries/session-status.ts';
import type { Logger } from '../../telemetry/logger.ts';
import type { PaidFrom } from './pools.ts';

const TOLD_ENTRIES = 20_000;
const MISSED_SINCE_MS = 10 * 60_000;
const MISSED_WINDOWS = 500;

/** Tells of shares that were spent: once for each window and limit, in `budget_events` and in the log of the session. */
export class BudgetAlerts {
  readonly #pool: Pool;
  readonly #logger: Logger;
  readonly #told = new Set<string>();
  readonly #pending = new Set<Promise<void>>();

  constructor(pool: Pool, logger: Logger) {
    this.#pool = pool;
    this.#logger = logger;
  }

  /** A window has spent this much. */
  spent(budget: BudgetRow, windowKey: string, spentMicros: number): void {
    const { hardLimitMicros, softLimitMicros } = budget;
    const limitMicros = hardLimitMicros ?? softLimitMicros ?? 0;
    for (const percent of budget.thresholds) {
      if (spentMicros * 100 >= limitMicros * percent) {
        this.#tell(budget, { windowKey, kind: 'threshold', percent, limitMicros, spentMicros });
      }
    }
    if (softLimitMicros !== null && spentMicros >= softLimitMicros) {
      const told = { kind: 'soft_limit', percent: 100, limitMicros: softLimitMicros } as const;
      this.#tell(budget, { ...told, windowKey, spentMicros });
    }
  }

  /** A call was refused or stopped because the window has too little left. */
  exhausted({ budget, windowKey }: PaidFrom, spentMicros = budget.spentMicros): void {
    const limitMicros = budget.hardLimitMicros ?? 0;
    this.#tell(budget, { windowKey, kind: 'exhausted', percent: 100, limitMicros, spentMicros });
  }

  /** Tells what a gateway that died had counted and not told. */
  async tellMissed(): Promise<void> {
    for (const window of await listChangedWindows(this.#pool, MISSED_SINCE_MS, MISSED_WINDOWS)) {
      const budget = await getBudget(this.#pool, window.teamId, window.budgetId);
      if (budget.archivedAt === null) this.spent(budget, window.windowKey, window.spentMicros);
    }
    await this.drain();
  }

  async drain(): Promise<void> {
    await Promise.all(this.#pending);
  }

  #tell(budget: BudgetRow, what: Omit<BudgetEventDraft, 'budgetId'>): void {
    const event = { ...what, budgetId: budget.id };
    const key = `${budget.id} ${what.windowKey} ${what.kind} ${what.percent} ${what.limitMicros}`;
    if (this.#told.has(key)) return;
    if (this.#told.size >= TOLD_ENTRIES) this.#told.clear();
    this.#told.add(key);
    const telling = this.#write(budget, event).catch((error: unknown) => {
      this.#told.delete(key);
      this.#logger.warn({ err: error, budgetId: budget.id }, 'an event of a budget is told later');
    });
    this.#pending.add(telling);
    void telling.finally(() => this.#pending.delete(telling));
  }

  async #write(budget: BudgetRow, event: BudgetEventDraft): Promise<void> {
    const sessionId = sessionOf(budget, event);
    await withTransaction(this.#pool, async (tx) => {
      const hasSession = sessionId !== undefined && (await findSession(tx, sessionId)) !== undefined;
      if (hasSession) await lockSession(tx, sessionId);
      if (!(await insertBudgetEvent(tx, event)) || !hasSession) return;
      await appendEvents(tx, sessionId, [{ type: EVENT_TYPE, payload: payloadOf(event) }]);
    });
  }
}

const EVENT_TYPE = 'session.budget_threshold';

function payloadOf(event: BudgetEventDraft): Record<string, number | string> & { kind: BudgetEventKind } {
  return {
    budget_id: event.budgetId,
    kind: event.kind,
    percent: event.percent,
    limit_micros: event.limitMicros,
    spent_micros: event.spentMicros,
  };
}

/** The session whose money it is, if it is one's. */
function sessionOf(budget: BudgetRow, { windowKey }: BudgetWindow): string | undefined {
  if (budget.scopeKind === 'session' || budget.scopeKind === 'root_session') return budget.scopeId;
  return budget.period === 'session' ? windowKey : undefined;
}
