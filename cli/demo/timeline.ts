import type { SessionEvent } from '../../contracts/events.ts';
import { stopReasonOf, textOf, toolInput } from './events.ts';
import { oneLine, type Printer } from './printer.ts';

/** Prints the events a person cares about. */
export function showEvent(printer: Printer, event: SessionEvent): void {
  switch (event.type) {
    case 'user.message':
      return printer.event('you', oneLine(textOf(event).split('```')[0] ?? ''), 'bold');
    case 'agent.message':
      return printer.event('agent', oneLine(textOf(event)), 'cyan');
    case 'agent.tool_use':
      return printer.event('tool', toolLine(event));
    case 'agent.tool_result':
      return printer.event('result', oneLine(textOf(event)), event['is_error'] === true ? 'yellow' : 'green');
    case 'user.tool_confirmation':
      return printer.event('approval', `answered: ${String(event['decision'])}`);
    case 'session.error':
      return printer.event('error', oneLine(String((event['error'] as { message?: unknown }).message), 300), 'red');
    case 'session.status_idle':
      return printer.event('session', `idle: ${stopReasonOf(event)}`);
    case 'session.status_terminated':
      return printer.event('session', 'terminated', 'red');
    default:
  }
}

function toolLine(event: SessionEvent): string {
  const call = toolInput(event);
  if (call === undefined) return '';
  const { command, file_path: file } = call.input;
  const main = [command, file].find((value) => typeof value === 'string') ?? JSON.stringify(call.input);
  return `${call.name.padEnd(5)} ${oneLine(main)}`;
}
