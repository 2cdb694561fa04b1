const PREVIEW_CHARS = 8_000;

/** What the call would do, ready to read: the command, the change, or the arguments. */
export function previewOf(tool: string, input: Record<string, unknown>): { text: string; truncated: boolean } {
  const whole = render(tool, input);
  return { text: whole.slice(0, PREVIEW_CHARS), truncated: whole.length > PREVIEW_CHARS };
}

function render(tool: string, input: Record<string, unknown>): string {
  const text = (key: string): string => (typeof input[key] === 'string' ? input[key] : '');
  switch (tool) {
    case 'bash':
      return text('command');
    case 'write':
      return [
        `+++ ${text('file_path')}`,
        ...text('content')
          .split('\n')
          .map((line) => `+${line}`),
      ].join('\n');
    case 'edit':
      return [
        `--- ${text('file_path')}`,
        `+++ ${text('file_path')}`,
        ...text('old_string')
          .split('\n')
          .map((line) => `-${line}`),
        ...text('new_string')
          .split('\n')
          .map((line) => `+${line}`),
      ].join('\n');
    case 'request_approval':
      return [
        text('title'),
        text('details'),
        input['arguments'] === undefined ? '' : JSON.stringify(input['arguments'], null, 2),
      ]
        .filter((part) => part !== '')
        .join('\n\n');
    default:
      return JSON.stringify(input, null, 2);
  }
}
