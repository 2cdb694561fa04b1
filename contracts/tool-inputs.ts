import { z } from 'zod';
import type { BuiltinToolName } from './definitions.ts';
import { BUILTIN_TOOL_NAMES } from './definitions.ts';
import { LIMITS } from './limits.ts';
import type { PlatformToolName } from './platform-tools.ts';
import { PLATFORM_TOOL_NAMES } from './platform-tools.ts';

const filePath = z
  .string()
  .min(1)
  .max(4_096)
  .refine((path) => !path.includes('\0'), 'must not hold NUL');

/** What the built-in tools take. Unknown arguments are refused, so that a misspelt one is not silently ignored. */
export const TOOL_INPUTS = {
  bash: z.strictObject({
    command: z
      .string()
      .min(1)
      .max(1_000_000)
      .refine((command) => !command.includes('\0'), 'must not hold NUL'),
    timeout_ms: z.int().min(1).max(LIMITS.toolTimeoutMaxMs).optional(),
  }),
  read: z.strictObject({ file_path: filePath, view_range: z.tuple([z.int().min(1), z.int().min(-1)]).optional() }),
  write: z.strictObject({ file_path: filePath, content: z.string().max(LIMITS.fileWriteBytes) }),
  edit: z.strictObject({
    file_path: filePath,
    old_string: z.string().min(1).max(LIMITS.fileWriteBytes),
    new_string: z.string().max(LIMITS.fileWriteBytes),
    replace_all: z.boolean().optional(),
  }),
  glob: z.strictObject({ pattern: z.string().min(1).max(1_024), path: filePath.optional() }),
  grep: z.strictObject({ pattern: z.string().min(1).max(4_096), path: filePath.optional() }),
  web_fetch: z.strictObject({ url: z.url({ protocol: /^https?$/ }).max(8_192) }),
} as const satisfies Record<BuiltinToolName, z.ZodType>;

export type ToolInput<Name extends BuiltinToolName> = z.infer<(typeof TOOL_INPUTS)[Name]>;

const title = z.string().trim().min(1).max(LIMITS.titleChars);
const details = z.string().max(LIMITS.platformToolTextChars).optional();

/** What the platform's own tools take. */
export const PLATFORM_INPUTS = {
  list_artifacts: z.strictObject({}),
  read_skill: z.strictObject({ name: z.string().min(1).max(64), path: filePath.optional() }),
  report_issue: z.strictObject({ title, details, severity: z.enum(['info', 'warning', 'error']).optional() }),
  request_approval: z.strictObject({ title, details, arguments: z.record(z.string(), z.json()).optional() }),
} as const satisfies Record<PlatformToolName, z.ZodType>;

export function isBuiltinTool(name: string): name is BuiltinToolName {
  return (BUILTIN_TOOL_NAMES as readonly string[]).includes(name);
}

function isPlatformTool(name: string): name is PlatformToolName {
  return (PLATFORM_TOOL_NAMES as readonly string[]).includes(name);
}

/** Why the input does not fit the tool, for the model to read; undefined when it does. */
export function inputProblem(tool: string, input: Record<string, unknown>): string | undefined {
  const schema = isBuiltinTool(tool) ? TOOL_INPUTS[tool] : isPlatformTool(tool) ? PLATFORM_INPUTS[tool] : undefined;
  const parsed = schema?.safeParse(input);
  if (parsed === undefined || parsed.success) return undefined;
  const issues = parsed.error.issues.map((issue) => `${issue.path.join('.') || 'input'}: ${issue.message}`);
  return `invalid arguments for ${tool}: ${issues.join('; ')}`.slice(0, 1_000);
}
