import { sha256 } from '../digest.ts';
import { writeCommand } from '../sandbox/write-command.ts';
import type { ExecResult } from './bash.ts';
import { followCommand, runCommand } from './bash.ts';
import type { ToolContext } from './outcome.ts';

/** A write may be tried again when its sandbox died, since half a write never shows; a sandbox that keeps dying is told. */
const TRIES = 3;

/**
 * The ids a tool call may start commands under: writes one after the other, each only when the one before was lost.
 * Killing them all ends the call for good, whoever still wants to start it.
 */
export function execIdsOf(tool: string, execId: string): string[] {
  if (tool !== 'write' && tool !== 'edit') return [execId];
  return Array.from({ length: TRIES }, (_value, index) => (index === 0 ? execId : `${execId}.${index}`));
}

/** How a write ended. `absent`: it was not started. */
export type WriteEnd =
  { kind: 'written' } | { kind: 'refused'; reason: string } | { kind: 'lost' } | { kind: 'absent' };

/**
 * Writes a file as a command of the effect's own id. Whoever comes second, also after a long sleep, attaches to it: no
 * worker can write once the effect has ended and later ones have begun.
 */
export async function writeOnce(
  context: ToolContext,
  path: string,
  content: Uint8Array,
  overSha256?: string,
): Promise<WriteEnd> {
  const name = `longhaul-${sha256(Buffer.from(context.execId)).slice(0, 12)}`;
  const argv = writeCommand(path, { name, ...(overSha256 === undefined ? {} : { overSha256 }) });
  return firstKept(context, (attempt) => runCommand(attempt, argv, content));
}

/** How the write of this effect ended, as far as an earlier attempt began it. */
export function pastWrite(context: ToolContext): Promise<WriteEnd> {
  return firstKept(context, followCommand);
}

async function firstKept(context: ToolContext, run: (attempt: ToolContext) => Promise<ExecResult>): Promise<WriteEnd> {
  let end: WriteEnd = { kind: 'absent' };
  for (const execId of execIdsOf('write', context.execId)) {
    const result = await run({ ...context, execId });
    if (result.status.state === 'absent') return end;
    end = endOf(result);
    if (end.kind !== 'lost') return end;
  }
  return end;
}

function endOf({ status, stderr }: ExecResult): WriteEnd {
  switch (status.state) {
    case 'lost':
    case 'absent':
      return { kind: 'lost' };
    case 'killed':
      return { kind: 'refused', reason: `the write was stopped (${status.reason})` };
    case 'exited': {
      if (status.exitCode === 0) return { kind: 'written' };
      const said = new TextDecoder().decode(stderr.bytes()).trim().split('\n').at(-1) ?? '';
      return { kind: 'refused', reason: said === '' ? `exit code ${status.exitCode}` : said.slice(0, 300) };
    }
    default:
      return status satisfies never;
  }
}
