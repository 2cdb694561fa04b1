import { LonghaulError } from '../../contracts/error-codes.ts';
import { LIMITS } from '../../contracts/limits.ts';
import type { Lease } from '../sandbox/lease.ts';
import type { ToolContext } from './outcome.ts';

/** Where whole results of tool calls are kept, inside the sandbox. */
export const OUTPUT_FOLDER = '/workspace/.longhaul/outputs';
/** Where whole messages are kept. */
export const INPUT_FOLDER = '/workspace/.longhaul/inputs';

/**
 * Text for the model: the whole of a small result; head, tail and a pointer to a workspace file of a large one, so that
 * one noisy command does not fill the context.
 */
export async function shorten(context: ToolContext, output: Uint8Array): Promise<string> {
  if (output.length <= LIMITS.toolOutputBytes) return decode(output);
  // The same content whoever writes it and when: a repeated effect has another id.
  const path = `${OUTPUT_FOLDER}/${context.execId}.txt`;
  const isKept = await keepWhole(context.lease, path, output, context.signal);
  const kept = { headBytes: LIMITS.toolOutputHeadBytes, tailBytes: LIMITS.toolOutputTailBytes };
  return excerpt(output, kept, isKept ? path : undefined);
}

/**
 * False when the workspace does not take the file (its disk is full, the agent has made something else of the folder): what
 * was done is done, and an agent that could not be talked to any more could not clear its disk either.
 */
export async function keepWhole(
  { provider, ref }: Pick<Lease, 'provider' | 'ref'>,
  path: string,
  whole: Uint8Array,
  signal: AbortSignal,
): Promise<boolean> {
  try {
    await provider.writeFile(ref, path, whole, signal);
    return true;
  } catch (error) {
    if (signal.aborted || !(error instanceof LonghaulError) || error.code !== 'sandbox_invalid') throw error;
    return false;
  }
}

/** Head and tail, and between them what is missing and where the whole is, if anywhere. */
export function excerpt(
  whole: Uint8Array,
  { headBytes, tailBytes }: { headBytes: number; tailBytes: number },
  path: string | undefined,
): string {
  const head = decode(whole.subarray(0, headBytes));
  const tail = decode(whole.subarray(whole.length - tailBytes));
  const cut = whole.length - headBytes - tailBytes;
  const missing =
    path === undefined
      ? `${cut} of ${whole.length} bytes are left out`
      : `${cut} bytes left out; all ${whole.length} bytes are in ${path}`;
  return `${head}\n[… ${missing} …]\n${tail}`;
}

/** Bytes that are no UTF-8 become replacement characters; NUL, which Postgres text cannot hold, too. */
function decode(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes).replaceAll('\0', '\uFFFD');
}
