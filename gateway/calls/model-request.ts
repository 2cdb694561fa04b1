import type { ServerResponse } from 'node:http';
import type { Usage } from '../../contracts/definitions.ts';
import type { TurnCall } from '../../db/queries/turns.ts';
import type { Caller } from '../auth.ts';
import type { Protocol } from '../protocol.ts';
import type { Provider, ProviderRequest, Served } from '../providers/port.ts';

/** One checked request of a caller, ready to be answered by a provider or from a record. */
export interface ModelRequest {
  res: ServerResponse;
  requestId: string;
  protocol: Protocol;
  caller: Caller;
  provider: Provider;
  /** As the provider knows it; what the ledger says. */
  model: string;
  /** As the caller named it: an alias or the model itself. */
  requestedModel: string;
  /** The configured deployment that answers; null for one that is known by the environment alone. */
  modelDeployment: string | null;
  /** Everybody who may come to answer. */
  targets: readonly Served[];
  isStream: boolean;
  /** Present for a key that follows its session's turn: the turn that ran when the call came. */
  turnCall: TurnCall | undefined;
  /** The caller's W3C trace context, as it came. */
  traceparent: string | undefined;
  /** What the caller lets the model write at most; null when it set no limit. */
  maxOutputTokens: number | null;
  /** As the caller sent it: what an idempotency key is bound to, whatever is done to it on its way. */
  body: Buffer;
  upstream: ProviderRequest;
  /** Told what the call used, once, when it has ended. */
  onUsage?: (usage: Usage) => void;
  /** Present when nobody waits for the answer: what it cost is known when it is looked at later. */
  background?: {
    /** The provider has taken the call: it is paid for, whatever becomes of this request. */
    isTaken: () => boolean;
    ended: () => void;
  };
}

/** Header that tells a caller its answer was made for an earlier request. */
export const REPLAYED_HEADER = 'x-longhaul-replayed';
/** Header that tells a caller its answer is being made for an earlier request, too. */
export const ATTACHED_HEADER = 'x-longhaul-attached';
/** Header that names the model the caller asked for, where a budget had a cheaper one called. */
export const DEGRADED_HEADER = 'x-longhaul-degraded-from';
