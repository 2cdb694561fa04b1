import type { ToolState } from './wire.ts';

/** Our fields by the names under which its clients look for them. */
const FIELDS: Readonly<Record<string, string>> = {
  file_path: 'filePath',
  old_string: 'oldString',
  new_string: 'newString',
  replace_all: 'replaceAll',
};

/** What a tool was called with, with the fields its clients draw from. */
export function shownInput(value: unknown): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return {};
  return Object.fromEntries(
    Object.entries(value as Record<string, unknown>).map(([name, field]) => [FIELDS[name] ?? name, field]),
  );
}

/** One line for a list of calls. */
export function titleOf(tool: string, input: Record<string, unknown>): string {
  const told = input['description'] ?? input['command'] ?? input['filePath'] ?? input['pattern'] ?? input['url'];
  return (typeof told === 'string' ? (told.split('\n')[0] ?? tool) : tool).slice(0, 200);
}

/** The permission its clients have a dialog for. */
export function permissionOf(tool: string): string {
  switch (tool) {
    case 'write':
    case 'edit':
      return 'edit';
    case 'web_fetch':
      return 'webfetch';
    default:
      return tool;
  }
}

/** The texts of a result. */
export function textOf(content: unknown): string {
  if (typeof content === 'string') return content;
  if (!Array.isArray(content)) return '';
  return content
    .flatMap((block: unknown) => {
      const { type, text } = (block ?? {}) as { type?: unknown; text?: unknown };
      if (type === 'text') return typeof text === 'string' ? [text] : [];
      return typeof type === 'string' ? [`[${type}]`] : [];
    })
    .join('\n');
}

/** The state of a call once its result is known. */
export function endedState(
  tool: string,
  before: ToolState,
  given: { content: unknown; isError: boolean; endMs: number },
): ToolState {
  const { input } = before;
  const start = 'time' in before ? before.time.start : given.endMs;
  const time = { start, end: given.endMs };
  const text = textOf(given.content);
  return given.isError
    ? { status: 'error', input, error: text, metadata: {}, time }
    : { status: 'completed', input, output: text, title: titleOf(tool, input), metadata: { output: text }, time };
}
