import type { LedgerEntry } from '../../db/queries/ledger.ts';
import type { TurnCall } from '../../db/queries/turns.ts';
import type { Caller } from '../auth.ts';
import type { PriceBook } from '../prices/price-book.ts';
import type { Protocol } from '../protocol.ts';
import type { CallOutcome } from './run-call.ts';

/** A native model step: the place in the world its ledger row has. */
export interface StepPlace {
  sessionId: string;
  turn: number;
  step: number;
  callKey: string;
}

export interface CallFacts {
  caller: Caller;
  protocol: Protocol;
  provider: string;
  model: string;
  requestedModel: string;
  modelDeployment: string | null;
  place: StepPlace | undefined;
  /** Where the call of a key that follows its session's turn belongs. */
  turnCall: TurnCall | undefined;
}

/** The ledger row of a call that has ended. */
export function ledgerEntry(id: string, prices: PriceBook, facts: CallFacts, outcome: CallOutcome): LedgerEntry {
  const planned = { deployment: facts.modelDeployment, provider: facts.provider, model: facts.model };
  const served = outcome.served ?? outcome.attempts.at(-1) ?? planned;
  const { attribution } = facts.caller;
  return {
    id,
    callKey: facts.place?.callKey ?? id,
    attribution,
    turn: facts.place?.turn ?? facts.turnCall?.turn ?? null,
    step: facts.place?.step ?? facts.turnCall?.call ?? null,
    virtualKeyId: facts.caller.virtualKey?.id ?? null,
    requestedModel: facts.requestedModel,
    modelDeployment: served.deployment,
    protocol: facts.protocol,
    provider: served.provider,
    model: served.model,
    usage: outcome.usage,
    costMicros: prices.costMicros({ ...served, teamId: attribution.teamId }, outcome.usage),
    usageBasis: outcome.usageBasis,
    ttftMs: outcome.ttftMs,
    latencyMs: outcome.latencyMs,
    httpStatus: outcome.httpStatus,
    error: outcome.failure?.error.code ?? null,
    attempts: outcome.attempts.length === 1 && outcome.failure === undefined ? [] : outcome.attempts,
  };
}
