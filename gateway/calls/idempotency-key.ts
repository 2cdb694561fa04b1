import { createHash } from 'node:crypto';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { stepKey } from '../../contracts/ids.ts';
import type { Caller } from '../auth.ts';
import type { StepPlace } from './ledger-entry.ts';

/** A caller's idempotency key: how it is stored, and the model step it names, if it does. */
export interface CallKey {
  stored: string;
  place: StepPlace | undefined;
}

const MAX_KEY_CHARS = 255;
const STEP_KEY = /^([^/\s]+)\/(\d{1,9})\/(\d{1,9})$/;

/**
 * Reads an Idempotency-Key. `session/turn/step` names a model step and must be of the caller's own session; any other
 * key is the caller's own affair and is kept apart from everybody else's.
 */
export function readCallKey(caller: Caller, key: string): CallKey {
  if (key === '' || key.length > MAX_KEY_CHARS || !/^[\x21-\x7e]+$/.test(key)) {
    throw new LonghaulError('invalid_request', `must be 1 to ${MAX_KEY_CHARS} printable characters`, {
      field: 'Idempotency-Key',
    });
  }
  const sessionId = caller.attribution.sessionId;
  // The calls of a harness are put where they belong by the gateway: no key of its names a place.
  const match = caller.virtualKey?.followsTurn === true ? null : STEP_KEY.exec(key);
  if (match !== null) {
    const [, session = '', turn = '', step = ''] = match;
    if (session !== sessionId) {
      throw new LonghaulError('forbidden', 'the Idempotency-Key names a session that is not this key’s');
    }
    const place = { sessionId: session, turn: Number(turn), step: Number(step) };
    const callKey = stepKey(place.sessionId, place.turn, place.step);
    return { stored: callKey, place: { ...place, callKey } };
  }
  const owner = sessionId ?? `${caller.attribution.teamId}\n${caller.attribution.userId}`;
  const digest = createHash('sha256').update(`${owner}\n${key}`).digest('hex');
  return { stored: `own/${digest}`, place: undefined };
}
