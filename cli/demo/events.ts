import type { SessionEvent } from '../../contracts/events.ts';
import { JOURNAL } from './story.ts';

/** Arguments of a tool call. */
export function toolInput(event: SessionEvent): { name: string; input: Record<string, unknown> } | undefined {
  if (event.type !== 'agent.tool_use') return undefined;
  return { name: String(event['name']), input: (event['input'] ?? {}) as Record<string, unknown> };
}

/** True for the call that runs for some seconds and writes when it starts and ends. */
export function isSlowCommand(event: SessionEvent): boolean {
  const call = toolInput(event);
  return call?.name === 'bash' && new RegExp(`start.*>> *${JOURNAL}`).test(String(call.input['command']));
}

/** Why the session fell idle; undefined for any other event. */
export function stopReasonOf(event: SessionEvent): string | undefined {
  if (event.type === 'session.status_terminated') return 'terminated';
  if (event.type !== 'session.status_idle') return undefined;
  return String((event['stop_reason'] as { type?: unknown } | null)?.type);
}

/** All text of an event's content blocks. */
export function textOf(event: SessionEvent): string {
  const content = event['content'];
  if (!Array.isArray(content)) return '';
  return (content as { type: string; text?: string }[]).map((block) => block.text ?? '').join('\n');
}
