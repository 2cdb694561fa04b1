import type { Transform } from 'node:stream';

/** What the data plane asks and what the policy answers. The data plane holds no rule; the policy opens no connection. */

/** Where a request goes. */
export interface EgressTarget {
  /** Canonical: lower-case, no trailing dot, IDNA in ASCII; an IPv6 address without brackets. */
  host: string;
  port: number;
  isTls: boolean;
  /** Where a service of the product itself listens: set by the policy alone, dialled in place of the name. */
  via?: { host: string; port: number; isTls: boolean };
}

/** Whose sandbox asks. It comes from the listener that took the connection, never from what was sent. */
export interface SandboxIdentity {
  sandboxId: string;
  /** null: made by an E2B program; its row says whose it is. */
  sessionId: string | null;
}

/** By what policies are kept: the session, or the sandbox that has none. */
export function ownerOf({ sessionId, sandboxId }: SandboxIdentity): string {
  return sessionId ?? sandboxId;
}

/** Names in lower case, in the order they came; a name may come more than once. */
export type HeaderList = readonly (readonly [name: string, value: string])[];

export interface RequestHead {
  target: EgressTarget;
  method: string;
  /** As sent, without query: begins with `/`, or is `*`. */
  path: string;
  /** As sent, without `?`; null when there was none. */
  query: string | null;
  /** Without hop-by-hop headers and those for a proxy. `host` is in it. */
  headers: HeaderList;
  isWebSocket: boolean;
}

/** How a request or a tunnel ended. `status` is null when no answer came. */
export interface Outcome {
  status: number | null;
  /** From the sandbox. */
  bytesOut: number;
  /** To the sandbox. */
  bytesIn: number;
  durationMs: number;
  /** Code of what broke it off. */
  error?: string;
}

/** The response as it came from upstream, before it is given to the sandbox. */
export interface ResponseHead {
  status: number;
  headers: HeaderList;
}

export interface Allowed {
  action: 'allow';
  /** As it goes upstream, with values put in. Its target is that of the request. */
  head: RequestHead;
  /** Absent: the body goes as it came. */
  requestBody?: () => Transform;
  /** Absent: the response goes as it came. `body` null: headers only. */
  response?: (head: ResponseHead) => { headers: HeaderList; body: (() => Transform) | null };
  limits: { requestBodyBytes: number; responseBodyBytes: number };
  /** Called once, at the end, however it ended. */
  record(outcome: Outcome): void;
}

export interface Denied {
  action: 'deny';
  status: 403 | 421 | 413 | 429 | 451 | 503;
  /** Stable, snake_case; goes to the sandbox in the body and as `x-longhaul-egress`. */
  code: string;
  /** For whoever reads it inside the sandbox: what was refused, why, who can change it. Never a secret. */
  message: string;
}

/** Bytes go through unread: for clients that accept only their own certificates. The name in the TLS hello must be the target's. */
export interface Passthrough {
  action: 'passthrough';
  limits: { requestBodyBytes: number; responseBodyBytes: number };
  record(outcome: Outcome): void;
}

/** What the data plane refused by itself: malformed, ambiguous, to a forbidden address, over a limit. */
export interface Refusal {
  /** null when it could not be told. */
  target: EgressTarget | null;
  /** What was asked for, cut to 256 printable characters: evidence when there is no target. */
  asked: string;
  method: string | null;
  path: string | null;
  status: number;
  code: string;
}

/** The policy of one sandbox. `signal` aborts when the sandbox has gone away; a question to a person ends then. */
export interface PolicyEngine {
  /** Before any byte goes out, for each CONNECT. May hold while somebody is asked. */
  connect(target: EgressTarget, signal: AbortSignal): Promise<{ action: 'terminate' } | Passthrough | Denied>;
  /** For each request whose bytes are read: within a terminated tunnel, or sent to the proxy in the clear. */
  request(head: RequestHead, signal: AbortSignal): Promise<Allowed | Denied>;
  /** For addresses that are refused otherwise (private, loopback, own): true opens one. */
  addressAllowed(address: string, target: EgressTarget): boolean;
  /** For public addresses: true keeps one closed. */
  addressDenied?(address: string, target: EgressTarget): boolean;
  /** Writes down what the data plane refused. */
  refused(refusal: Refusal): void;
  /** The sandbox is gone. */
  dispose(): void;
}

/** The policies of all sandboxes; one per broker. */
export interface EgressPolicies {
  open(sandbox: SandboxIdentity): Promise<PolicyEngine>;
  /** Policy or credentials of the session (or of the sandbox without one) changed: read again, now. */
  refresh(ownerId: string): Promise<void>;
  /** Tells whenever the rules of a session are others than they were: what is open and cannot be looked into has to end. */
  onRulesChanged?(tell: (ownerId: string) => void): void;
  /** The session ended: forget its values; its engines deny all from now on. */
  revoke(sessionId: string): Promise<void>;
  /** Takes live values of the session, in all encodings, out of texts. */
  redact(sessionId: string, texts: string[]): Promise<{ texts: string[]; redactions: number }>;
  /** Writes what is still to be written. */
  close(): Promise<void>;
}
