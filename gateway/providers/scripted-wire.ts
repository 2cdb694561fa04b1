import { assertNever } from '../../contracts/states.ts';
import type { Protocol } from '../protocol.ts';
import type { Frame } from './scripted-frame.ts';
import { chatBody, chatFrames } from './scripted-wire-chat.ts';
import { geminiBody, geminiFrames } from './scripted-wire-gemini.ts';
import { messagesBody, messagesFrames } from './scripted-wire-messages.ts';
import { responsesBody, responsesFrames } from './scripted-wire-responses.ts';
import type { Reply } from './scripted-reply.ts';

/** The answer as a stream of the protocol. */
export function framesOf(protocol: Protocol, reply: Reply, request: Record<string, unknown>): Frame[] {
  switch (protocol) {
    case 'messages':
      return messagesFrames(reply);
    case 'chat':
      return chatFrames(reply, request);
    case 'responses':
      return responsesFrames(reply);
    case 'gemini':
      return geminiFrames(reply);
    default:
      return assertNever(protocol);
  }
}

/** The answer as one JSON body of the protocol. */
export function bodyOf(protocol: Protocol, reply: Reply): object {
  switch (protocol) {
    case 'messages':
      return messagesBody(reply);
    case 'chat':
      return chatBody(reply);
    case 'responses':
      return responsesBody(reply);
    case 'gemini':
      return geminiBody(reply);
    default:
      return assertNever(protocol);
  }
}
