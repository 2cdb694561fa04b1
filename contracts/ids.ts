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
  sessionToken: 'stok',
  harnessCall: 'hcal',
  skill: 'skill',
  skillVersion: 'skver',
  sandbox: 'sbx',
  snapshot: 'snap',
  vault: 'vlt',
  credential: 'vcrd',
  vaultBinding: 'vbnd',
  sessionCredential: 'scrd',
  egressRequest: 'egrq',
  securityEvent: 'secv',
  file: 'file',
  sessionPort: 'port',
  sessionResource: 'sesrsc',
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
  let text = `${ID_PREFIX[kind]}_${time}`;
  for (const byte of randomBytes16()) text += ALPHABET.charAt(byte % 32);
  return text;
}

const RESERVE_BYTES = 4_096;
let reserve = new Uint8Array(0);
let used = 0;

/** From a reserve: asking the system for a few bytes at a time costs more than all the rest of an id. */
function randomBytes16(): Uint8Array {
  if (used === reserve.length) {
    reserve = globalThis.crypto.getRandomValues(new Uint8Array(RESERVE_BYTES));
    used = 0;
  }
  used += 16;
  return reserve.subarray(used - 16, used);
}

/** True when `value` has the shape that `newId(kind)` makes. */
export function isId(kind: IdKind, value: string): boolean {
  return new RegExp(`^${ID_PREFIX[kind]}_[0-9a-z]{26}$`).test(value);
}

/** One model call's place in the world; also the gateway's idempotency key. */
export function stepKey(sessionId: string, turn: number, step: number): string {
  return `${sessionId}/${turn}/${step}`;
}
