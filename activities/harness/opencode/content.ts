import type { ContentBlock } from '../../../contracts/definitions.ts';
import { partId } from './ids.ts';
import type { PromptPart } from './wire.ts';

/**
 * The message's parts. Files go along as data, never as an address: OpenCode would read a path from this machine's disk,
 * and fetch from inside its network.
 */
export function promptParts(
  messageId: string,
  content: readonly ContentBlock[],
  continuation: string | null,
): PromptPart[] {
  const told: ContentBlock[] = continuation === null ? [] : [{ type: 'text', text: continuation }];
  return [...content, ...told].map((block, index) => partOf(block, partId(messageId, index)));
}

function partOf(block: ContentBlock, id: string): PromptPart {
  if (block.type === 'text') return { id, type: 'text', text: block.text };
  const { source } = block;
  const title = block.type === 'document' ? (block.title ?? 'document') : 'image';
  switch (source.type) {
    case 'text':
      return { id, type: 'text', text: `${title}\n\n${source.data}` };
    case 'url':
      return { id, type: 'text', text: `[${title}: ${source.url}]` };
    case 'base64': {
      const url = `data:${source.media_type};base64,${source.data}`;
      return { id, type: 'file', mime: source.media_type, filename: title, url };
    }
  }
}
