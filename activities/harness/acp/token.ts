import type { ResumeToken } from '../port.ts';
import type { StdioRef } from '../host/stdio.ts';

/** What another worker needs to go on with a session: plain JSON, no secrets. */
export interface AcpToken {
  agent: string;
  /** The agent's own id of the session; null before it has made one. */
  sessionId: string | null;
  /** When it was made. */
  createdAtMs: number;
  /** The process that serves it, when it may still run. */
  process: StdioRef | null;
  /** Requests of ours have ids from here on: nobody mistakes an answer to an earlier worker for one of his. */
  nextRequestId: number;
  /** Up to where the process's output was taken. */
  readTo: number;
  /** The model the process was started with or told last. */
  model: string | null;
  /** Id of the agent's option that is its model; null where it has none. */
  modelOption: string | null;
  /** The last turn that was sent; null before the first. */
  turn: SentTurn | null;
}

/** A prompt that went, or was about to go, to the agent. */
export interface SentTurn {
  messageId: string;
  /** Id of the request; every event of the turn carries it. */
  requestId: number;
  /** Where the agent's output stood then: a new worker reads from there. */
  readFrom: number;
  /** Requests of the agent that have their answer. */
  answered: string[];
  /** The agent has answered: nothing of it runs. */
  isOver: boolean;
  /** How many user messages the session had before. */
  promptsBefore: number;
}

/** The token as it was stored, or undefined when it is of another agent or was never stored. */
export function readToken(token: ResumeToken | null, agent: string): AcpToken | undefined {
  if (token === null || token['agent'] !== agent) return undefined;
  return token as unknown as AcpToken;
}

export function writeToken(token: AcpToken): ResumeToken {
  return structuredClone(token) as unknown as ResumeToken;
}

/** Of a session that was never opened. */
export function emptyToken(agent: string): AcpToken {
  return {
    agent,
    sessionId: null,
    createdAtMs: 0,
    process: null,
    nextRequestId: 1,
    readTo: 0,
    model: null,
    modelOption: null,
    turn: null,
  };
}
