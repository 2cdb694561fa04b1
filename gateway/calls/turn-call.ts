import { LonghaulError } from '../../contracts/error-codes.ts';
import type { Queryable } from '../../db/pool.ts';
import { takeTurnCall, type TurnCall } from '../../db/queries/turns.ts';
import type { Caller } from '../auth.ts';

/**
 * The place of a harness's call in its session; undefined for a key that does not follow turns. Asked for each call: a
 * caller is remembered for a while, in which one turn may end and the next begin.
 */
export async function placeInTurn(
  db: Queryable,
  { virtualKey, attribution }: Caller,
  isBackground: boolean,
): Promise<TurnCall | undefined> {
  if (virtualKey?.followsTurn !== true) return undefined;
  if (isBackground) {
    // Its cost is known when its turn may long be over.
    throw new LonghaulError('invalid_request', 'a key that follows turns takes no background responses', {
      field: 'background',
    });
  }
  const { sessionId } = attribution;
  const place = sessionId === null ? undefined : await takeTurnCall(db, sessionId);
  if (place === undefined) {
    throw new LonghaulError('no_turn_running', 'this key is good while a turn of its session runs, and none does');
  }
  return place;
}
