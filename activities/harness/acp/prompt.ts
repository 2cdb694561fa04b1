import type { ContentBlock as AcpContent } from '@agentclientprotocol/sdk';
import type { ContentBlock } from '../../../contracts/definitions.ts';
import type { TurnSpec } from '../port.ts';
import type { AcpSession } from './session.ts';

const GO_ON = 'Go on with my last message: the work on it was interrupted.';
const COMPARED_CHARS = 2_000;

/** What is sent for a turn: its message, or, where the agent has that already, what became of things since. */
export function promptOf(session: AcpSession, turn: TurnSpec): AcpContent[] {
  if (!wasSent(session, turn)) return turn.content.map(toAcp);
  return [{ type: 'text', text: turn.continuation ?? GO_ON }];
}

/** The agent's memory has the message, whoever sent it. */
function wasSent(session: AcpSession, turn: TurnSpec): boolean {
  if (session.sent.has(turn.messageId)) return true;
  const { turn: sent } = session.token;
  if (sent?.messageId !== turn.messageId) return false;
  // Of an agent that does not repeat its sessions nobody knows: better asked to go on than asked twice.
  if (session.history === undefined) return true;
  const text = comparable(turn.content.map((block) => (block.type === 'text' ? block.text : '')).join(''));
  // Agents that failed on a message may join it with the one before.
  const recent = session.history.slice(Math.max(0, sent.promptsBefore - 1));
  return recent.some((prompt) => comparable(prompt).includes(text));
}

function comparable(text: string): string {
  return text.replaceAll(/\s+/g, ' ').trim().slice(0, COMPARED_CHARS);
}

function toAcp(block: ContentBlock): AcpContent {
  switch (block.type) {
    case 'text':
      return { type: 'text', text: block.text };
    case 'image':
      return block.source.type === 'base64'
        ? { type: 'image', data: block.source.data, mimeType: block.source.media_type }
        : { type: 'resource_link', uri: block.source.url, name: 'image' };
    case 'document':
      return documentOf(block);
  }
}

function documentOf({ source, title }: Extract<ContentBlock, { type: 'document' }>): AcpContent {
  const name = title ?? 'document';
  if (source.type === 'url') return { type: 'resource_link', uri: source.url, name };
  const resource =
    source.type === 'text'
      ? { uri: `document:${name}`, mimeType: source.media_type, text: source.data }
      : { uri: `document:${name}`, mimeType: source.media_type, blob: source.data };
  return { type: 'resource', resource };
}
