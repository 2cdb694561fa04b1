import { LIMITS } from '../../contracts/limits.ts';
import { assertNever } from '../../contracts/states.ts';
import type { EffectResult } from '../../db/queries/effects.ts';
import { sha256 } from '../digest.ts';
import type { ToolInput } from '../../contracts/tool-inputs.ts';
import type { ToolContext, ToolOutcome } from './outcome.ts';
import { done } from './outcome.ts';
import { shorten } from './shorten.ts';
import type { WriteEnd } from './write-once.ts';
import { pastWrite, writeOnce } from './write-once.ts';

/** Absolute inside the sandbox; relative paths start at the workspace. */
export function absolute(path: string): string {
  return path.startsWith('/') ? path : `/workspace/${path}`;
}

async function readOrUndefined(context: ToolContext, path: string, maxBytes: number): Promise<Uint8Array | undefined> {
  const { provider, ref } = context.lease;
  const stat = await provider.stat(ref, path, context.signal);
  if (stat === null || stat.type === 'directory') return undefined;
  return provider.readFile(ref, path, maxBytes, context.signal);
}

/** The read tool: numbered lines, bounded. */
export async function read(context: ToolContext, input: ToolInput<'read'>): Promise<ToolOutcome> {
  const path = absolute(input.file_path);
  const bytes = await readOrUndefined(context, path, LIMITS.fileReadBytes);
  if (bytes === undefined) return done(`${path} is not a file`, true);
  const lines = new TextDecoder().decode(bytes).split('\n');
  const [from, to] = input.view_range ?? [1, -1];
  const last = to === -1 ? lines.length : Math.min(to, lines.length);
  const shown = lines.slice(from - 1, last).map((line, index) => `${String(from + index).padStart(6)}\t${line}`);
  const note = bytes.length >= LIMITS.fileReadBytes ? `\n[the file goes on after ${LIMITS.fileReadBytes} bytes]` : '';
  return done(await shorten(context, Buffer.from(shown.join('\n') + note)));
}

/** The write tool: same content, same file, however often it is tried. */
export async function write(context: ToolContext, input: ToolInput<'write'>): Promise<ToolOutcome> {
  const path = absolute(input.file_path);
  const content = Buffer.from(input.content);
  return told(path, await writeOnce(context, path, content), `wrote ${content.length} bytes to ${path}`);
}

function told(path: string, end: WriteEnd, written: string): ToolOutcome {
  switch (end.kind) {
    case 'written':
      return done(written);
    case 'refused':
      return done(`${path}: ${end.reason}`, true);
    case 'lost':
    case 'absent':
      return { kind: 'lost', reason: `the sandbox died while ${path} was written` };
    default:
      return assertNever(end);
  }
}

/** Undefined for bytes that would not come back the same; a byte order mark stays. */
function decodeText(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

/**
 * The edit tool. The hashes of before and after are in the ledger before the write starts. A second attempt asks how that
 * write ended, and compares when the sandbox died under it. The file is replaced only while it still is what was read.
 */
export async function edit(
  context: ToolContext,
  input: ToolInput<'edit'>,
  plan: EffectResult['plan'],
  savePlan: (plan: NonNullable<EffectResult['plan']>) => Promise<void>,
): Promise<ToolOutcome> {
  const path = absolute(input.file_path);
  const past: WriteEnd = plan === undefined ? { kind: 'absent' } : await pastWrite(context);
  if (past.kind === 'written' || past.kind === 'refused') return told(path, past, `edited ${path}`);
  const before = await readOrUndefined(context, path, LIMITS.fileWriteBytes + 1);
  if (before === undefined) return done(`${path} is not a file`, true);
  if (before.length > LIMITS.fileWriteBytes) return done(`${path} is too large to edit`, true);
  if (plan !== undefined && sha256(before) === plan.newSha256) return done(`edited ${path}`);
  if (plan !== undefined && sha256(before) !== plan.oldSha256) {
    return { kind: 'lost', reason: `${path} changed while the edit was under way` };
  }
  const text = decodeText(before);
  if (text === undefined) return done(`${path} is not UTF-8 text`, true);
  const count = text.split(input.old_string).length - 1;
  if (count === 0) return done(`old_string does not occur in ${path}`, true);
  if (count > 1 && input.replace_all !== true) {
    return done(`old_string occurs ${count} times in ${path}; make it unique or set replace_all`, true);
  }
  const after = Buffer.from(text.split(input.old_string).join(input.new_string));
  if (after.length > LIMITS.fileWriteBytes)
    return done(`${path} would grow beyond ${LIMITS.fileWriteBytes} bytes`, true);
  await savePlan({ oldSha256: sha256(before), newSha256: sha256(after) });
  const end = await writeOnce(context, path, after, sha256(before));
  return told(path, end, `edited ${path} (${count} replacement${count === 1 ? '' : 's'})`);
}
