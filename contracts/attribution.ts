/** Zod-free. Who and what a model call is for: the dimensions of budgets, of the ledger and of traces. */

/** Resolved from the key alone (invariant 12); null where the call has no such thing. */
export interface Attribution {
  teamId: string;
  userId: string;
  /** The key the call came with: a virtual key's or an API key's id. */
  keyId: string;
  sessionId: string | null;
  /** The session at the top of the tree; a session that no other one started is its own root. */
  rootSessionId: string | null;
  threadId: string | null;
  agentId: string | null;
  agentVersion: number | null;
  deploymentId: string | null;
  /** Which loop asks: `native`, `opencode`, …; null for people and CI. */
  harness: string | null;
  /** Remote service that runs the agent by itself; null when the harness is ours to run. */
  runtime: string | null;
  /** `owner/name` of the repository the session works on. */
  repo: string | null;
  labels: readonly string[];
  /** What started the session: `api`, `schedule`, `manual`, … */
  trigger: string | null;
}
