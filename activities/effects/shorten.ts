import { LIMITS } from '../../contracts/limits.ts';
import type { ToolContext } from './outcome.ts';

/** Where whole results of tool calls are kept, inside the sandbox. */
const OUTPUT_FOLDER = '/workspace/.longhaul/outputs';

/**
 * Text for the model: the whole of a small result; head, tail and a pointer to a workspace file of a large one, so that
 * one noisy command does not fill the context.
 */
export async function shorten(context: ToolContext, output: Uint8Array): Promise<string> {
  if (output.length <= LIMITS.toolOutputBytes) return decode(output);
  // The same content whoever writes it and when: a repeated effect has another id.
  const path = `${OUTPUT_FOLDER}/${context.execId}.txt`;
  await context.lease.provider.writeFile(context.lease.ref, path, output, context.signal);
  const head = decode(output.subarray(0, LIMITS.toolOutputHeadBytes));
  const tail = decode(output.subarray(output.length - LIMITS.toolOutputTailBytes));
  const cut = output.length - LIMITS.toolOutputHeadBytes - LIMITS.toolOutputTailBytes;
  return `${head}\n[… ${cut} bytes left out; all ${output.length} bytes are in ${path} …]\n${tail}`;
}

/** Bytes that are no UTF-8 become replacement characters; NUL, which Postgres text cannot hold, too. */
function decode(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes).replaceAll('\0', '\uFFFD');
}
