/** Zod-free: workflows import this file at run time, so it must stay free of Node built-ins. */

/** Prefix of each public id; the prefixes of the Managed Agents resources are those its clients already know. */
export const ID_PREFIX = {
  agent: 'agent',
  environment: 'env',
  session: 'sesn',
  event: 'sevt',
  approval: 'appr',
  deployment: 'depl',
  deploymentRun: 'drun',
  apiKey: 'key',
  virtualKey: 'vkey',
  sandbox: 'sbx',
  request: 'req',
  ledger: 'call',
  price: 'price',
  budget: 'bdgt',
  budgetEvent: 'bevt',
  modelRoute: 'mrte',
} as const;

export type IdKind = keyof typeof ID_PREFIX;

const ALPHABET = '0123456789abcdefghjkmnpqrstvwxyz';

/** `prefix_` + 10 characters of time + 16 random ones: sorts by creation time, 80 random bits. */
export function newId(kind: IdKind, nowMs: number = Date.now()): string {
  let time = '';
  for (let rest = nowMs, i = 0; i < 10; i += 1) {
    time = ALPHABET.charAt(rest % 32) + time;
    rest = Math.floor(rest / 32);
  }
  const random = globalThis.crypto.getRandomValues(new Uint8Array(16));
  return `${ID_PREFIX[kind]}_${time}${Array.from(random, (byte) => ALPHABET.charAt(byte % 32)).join('')}`;
}

/** True when `value` has the shape that `newId(kind)` makes. */
export function isId(kind: IdKind, value: string): boolean {
  return new RegExp(`^${ID_PREFIX[kind]}_[0-9a-z]{26}$`).test(value);
}

/** One model call's place in the world; also the gateway's idempotency key. */
export function stepKey(sessionId: string, turn: number, step: number): string {
  return `${sessionId}/${turn}/${step}`;
}
