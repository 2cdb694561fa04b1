import { createHash } from 'node:crypto';
import { z } from 'zod';
import { LIMITS } from '../../contracts/limits.ts';

const MAX_STEPS = 1_000;
const MAX_CHUNKS = 10_000;

const delayMs = z.int().min(0).max(LIMITS.modelTotalMs);
const tokens = z.int().min(0).max(1_000_000_000);

const stepSchema = z.strictObject({
  text: z.string().optional(),
  thinking: z.string().optional(),
  tools: z
    .array(z.strictObject({ name: z.string().min(1), input: z.record(z.string(), z.unknown()).default({}) }))
    .max(LIMITS.toolCallsPerStep * 4)
    .optional(),
  /** Before the first byte. */
  delayMs: delayMs.optional(),
  /** Between two chunks. */
  chunkMs: delayMs.optional(),
  chunks: z.int().min(1).max(MAX_CHUNKS).optional(),
  error: z
    .strictObject({
      status: z.int().min(400).max(599),
      type: z.string().optional(),
      message: z.string().optional(),
      /** That many askings fail, then the step plays; absent: every asking fails. */
      times: z.int().min(0).optional(),
    })
    .optional(),
  /** This body instead of an answer, whatever the protocol: a proxy's page, a stream that is none. */
  raw: z
    .strictObject({
      status: z.int().min(200).max(599).default(200),
      contentType: z.string().regex(/^[\x20-\x7e]{1,200}$/),
      body: z.string(),
    })
    .optional(),
  cutAfterChunks: z.int().min(0).max(MAX_CHUNKS).optional(),
  usage: z
    .strictObject({
      input: tokens.optional(),
      output: tokens.optional(),
      cacheRead: tokens.optional(),
      cacheWrite: tokens.optional(),
    })
    .optional(),
});
const scriptSchema = z.array(stepSchema).max(MAX_STEPS);

/** One answer of the scripted model. */
export type ScriptStep = z.infer<typeof stepSchema>;

/** A script as found in a message. */
export interface Script {
  digest: string;
  steps: ScriptStep[];
}

/** The script is there but cannot be played. */
export class ScriptError extends Error {
  override readonly name = 'ScriptError';
}

const FENCE = /^[ ]{0,3}(`{3,}|~{3,})[ \t]*(.*?)[ \t]*$/;

/** The text of the last closed fenced block with info string `script`. */
export function findScriptBlock(text: string): string | undefined {
  let found: string | undefined;
  let open: { fence: string; isScript: boolean; lines: string[] } | undefined;
  for (const line of text.split(/\r?\n/)) {
    const [, fence = '', info = ''] = FENCE.exec(line) ?? [];
    if (open === undefined) {
      if (fence !== '') open = { fence, isScript: info === 'script', lines: [] };
    } else if (info === '' && fence.startsWith(open.fence)) {
      if (open.isScript) found = open.lines.join('\n');
      open = undefined;
    } else open.lines.push(line);
  }
  return found;
}

/** Reads a block's text; the error names what is wrong and where. */
export function parseScript(block: string): Script {
  let value: unknown;
  try {
    value = JSON.parse(block);
  } catch (error) {
    throw new ScriptError(`the script is not JSON: ${(error as Error).message}`);
  }
  const result = scriptSchema.safeParse(value);
  if (!result.success) {
    const [issue] = result.error.issues;
    const place = issue === undefined || issue.path.length === 0 ? 'script' : `script[${issue.path.join('.')}]`;
    throw new ScriptError(`${place}: ${issue?.message ?? 'invalid'}`);
  }
  return { digest: createHash('sha256').update(block).digest('hex'), steps: result.data };
}
