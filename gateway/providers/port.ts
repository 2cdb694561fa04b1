import type { Attempt } from '../../contracts/routing.ts';
import type { Protocol } from '../protocol.ts';

/** One request as a provider gets it: no key of ours, no header the caller could smuggle something in with. */
export interface ProviderRequest {
  protocol: Protocol;
  /** `count_tokens` asks for no answer and costs nothing. */
  operation: 'generate' | 'count_tokens';
  /** As the body names it. */
  model: string;
  body: Buffer;
  /** The usage in a chat stream was asked for by the gateway: the caller does not get to see it. */
  hidesUsage?: boolean;
  /** Protocol headers of the caller (versions, betas), lower-case. */
  headers: Record<string, string>;
  /** Query string with its question mark, or empty. */
  search: string;
  /** Session of the caller's virtual key. */
  sessionId: string | undefined;
}

/** Who really answered, when one provider stands for several. */
export interface Served {
  /** The configured deployment; null for one that is known by the environment alone. */
  deployment: string | null;
  provider: string;
  /** As that provider knows it: what the call is priced by. */
  model: string;
}

/** Where an answer goes, in this order: one head, pieces of the body, then one end or one failure. */
export interface AnswerSink {
  onHead(status: number, headers: Record<string, string>, served?: Served): void;
  /** False asks the provider to pause until `resume`. */
  onData(chunk: Buffer): boolean;
  onEnd(): void;
  /** `billed: false` when the provider is known not to have charged what it sent so far. */
  onFailure(error: Error, billed: boolean): void;
}

/** A running call. After `abort` the sink hears nothing more. */
export interface RunningCall {
  resume(): void;
  abort(): void;
  /** Who was asked so far, when one provider stands for several. */
  readonly attempts?: readonly Attempt[] | undefined;
}

/** Something to be done with an answer that stays at its provider. */
export interface StoredRequest {
  action: 'retrieve' | 'input_items' | 'cancel' | 'delete';
  responseId: string;
  /** Protocol headers of the caller, lower-case. */
  headers: Record<string, string>;
  /** Query string with its question mark, or empty. */
  search: string;
}

export interface Provider {
  readonly name: string;
  start(request: ProviderRequest, sink: AnswerSink): RunningCall;
  /** The same, but it asks that deployment alone; undefined when it has none of that name. */
  only?(deployment: string | null): Provider | undefined;
  /** Absent where no answer stays. */
  stored?(request: StoredRequest, sink: AnswerSink): RunningCall;
  close(): Promise<void>;
}
