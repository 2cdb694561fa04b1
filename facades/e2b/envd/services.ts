import type { z } from 'zod';
import type { LiveSandbox } from '../sandboxes.ts';
import { RpcError, type Message, type RpcStream } from './connect.ts';

/** One call to a daemon's service. */
export interface RpcContext {
  live: LiveSandbox;
  user: string;
  /** Ends with the connection. */
  signal: AbortSignal;
  /** How often a silent stream shows that it is alive. */
  keepaliveMs: number;
  /** How long the caller wants it to last; absent: as long as it takes. */
  timeoutMs: number | undefined;
}

export type UnaryHandler = (context: RpcContext, message: Message) => Promise<object>;
export type StreamHandler = (context: RpcContext, message: Message, stream: RpcStream) => Promise<void>;

/** A message of this shape. */
export function parseMessage<T extends z.ZodType>(shape: T, message: unknown): z.infer<T> {
  const parsed = shape.safeParse(message);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw new RpcError('invalid_argument', `${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'is not valid'}`);
}
