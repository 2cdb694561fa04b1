import { z } from 'zod';

/** What Claude Code posts before it uses a tool; what else it tells is ignored, and may grow. */
export const preToolUse = z
  .looseObject({
    hook_event_name: z.literal('PreToolUse'),
    tool_name: z.string().min(1).max(256),
    tool_input: z.record(z.string(), z.unknown()),
    tool_use_id: z.string().min(1).max(200),
  })
  .meta({ id: 'PreToolUse' });
export type PreToolUse = z.infer<typeof preToolUse>;

/** `defer`: end the turn; the same call is asked again when the session is resumed. */
export const preToolUseDecision = z
  .object({
    hookSpecificOutput: z.object({
      hookEventName: z.literal('PreToolUse'),
      permissionDecision: z.enum(['allow', 'deny', 'defer']),
      permissionDecisionReason: z.string().optional(),
      updatedInput: z.record(z.string(), z.unknown()).optional(),
    }),
  })
  .meta({ id: 'PreToolUseDecision' });
export type PreToolUseDecision = z.infer<typeof preToolUseDecision>;
