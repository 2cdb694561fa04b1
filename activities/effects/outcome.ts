import type { ContentBlock } from '../../contracts/definitions.ts';
import type { Lease } from '../sandbox/lease.ts';

/** What a tool gave. `lost`: it started and nobody can say how it ended. */
export type ToolOutcome =
  { kind: 'done'; content: ContentBlock[]; isError: boolean } | { kind: 'lost'; reason: string };

export interface ToolContext {
  lease: Lease;
  effectId: string;
  /** Idempotency key of commands: effect and generation. */
  execId: string;
  timeoutMs: number;
  /** True when an earlier attempt wrote `started`: re-attach, do not begin anew. */
  resumed: boolean;
  signal: AbortSignal;
}

export const done = (text: string, isError = false): ToolOutcome => ({
  kind: 'done',
  content: [{ type: 'text', text }],
  isError,
});
