import { LIMITS } from '../../contracts/limits.ts';
import type { ApprovalSignal, InputMessage, OpenTurn, SessionCarry } from '../messages.ts';

/**
 * Answers that are carried over continue-as-new, the newest ones: nothing waits at a boundary, so they are late or
 * repeated answers to questions that are over.
 */
const CARRIED_ANSWERS = 32;

/** Runs of an earlier version carried whole messages. */
export function idOf(input: string | InputMessage): string {
  return typeof input === 'string' ? input : input.eventId;
}

export function openTurnOf(open: SessionCarry['open']): OpenTurn | undefined {
  if (open === undefined || 'eventIds' in open) return open;
  const { inputs, ...place } = open;
  return { ...place, eventIds: inputs.map(idOf) };
}

/** What only may be long, cut to what can still matter; queue and open turn are never cut. */
export function bounded(carry: SessionCarry): SessionCarry {
  const queued = new Set(carry.queue.map(idOf));
  return {
    ...carry,
    seen: carry.seen.filter((id) => !queued.has(id)).slice(-LIMITS.seenInputIds),
    decisions: carry.decisions.slice(-CARRIED_ANSWERS).map(withoutText),
    answered: carry.answered.slice(-CARRIED_ANSWERS),
  };
}

function withoutText({ approvalId, decision, eventId }: ApprovalSignal): ApprovalSignal {
  return { approvalId, decision, ...(eventId === undefined ? {} : { eventId }) };
}
