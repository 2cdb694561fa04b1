import type { ContentBlock } from '../../../contracts/definitions.ts';

/** A message as Copilot takes it: its text, and what is given as base64 beside it. */
export function messageOf(content: ContentBlock[]): { prompt: string; attachments?: object[] } {
  const texts: string[] = [];
  const attachments: object[] = [];
  for (const block of content) {
    if (block.type === 'text') texts.push(block.text);
    else if (block.source.type === 'base64') {
      attachments.push({ type: 'blob', data: block.source.data, mimeType: block.source.media_type });
    } else if (block.source.type === 'text') texts.push(block.source.data);
    else texts.push(block.source.url);
  }
  const prompt = texts.join('\n\n');
  return attachments.length === 0 ? { prompt } : { prompt, attachments };
}
