import type { ContentBlock } from '../../../contracts/definitions.ts';

/** A message as codex takes it. Documents are told by their text; codex reads no other kind. */
export function userInput(content: ContentBlock[]): object[] {
  return content.map((block) => {
    switch (block.type) {
      case 'text':
        return textInput(block.text);
      case 'image': {
        const { source } = block;
        return {
          type: 'image',
          url: source.type === 'url' ? source.url : `data:${source.media_type};base64,${source.data}`,
        };
      }
      case 'document': {
        const { source, title } = block;
        const head = title === undefined || title === null ? '' : `${title}\n\n`;
        if (source.type === 'text') return textInput(head + source.data);
        const what = source.type === 'url' ? source.url : source.media_type;
        return textInput(`${head}[a document (${what}) that this agent cannot read]`);
      }
    }
  });
}

function textInput(text: string): object {
  return { type: 'text', text, text_elements: [] };
}
