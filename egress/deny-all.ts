import type { Denied, EgressPolicies, PolicyEngine } from './decision.ts';

const DENIED: Denied = {
  action: 'deny',
  status: 403,
  code: 'no_policy',
  message: 'This broker has no policy: nothing may leave a sandbox.',
};

const ENGINE: PolicyEngine = {
  connect: () => Promise.resolve(DENIED),
  request: () => Promise.resolve(DENIED),
  addressAllowed: () => false,
  refused: () => undefined,
  dispose: () => undefined,
};

/** What holds without any policy: nothing leaves. */
export const DENY_ALL: EgressPolicies = {
  open: () => Promise.resolve(ENGINE),
  refresh: () => Promise.resolve(),
  revoke: () => Promise.resolve(),
  redact: (_sessionId, texts) => Promise.resolve({ texts, redactions: 0 }),
  close: () => Promise.resolve(),
};
