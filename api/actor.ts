import type { Principal } from '../db/queries/api-keys.ts';

/** Who acts, as audit rows and approvals name them. */
export function actorOf(principal: Principal): string {
  return `user:${principal.userId}`;
}
