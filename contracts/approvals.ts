import { z } from 'zod';
import { time } from './fields.ts';
import { idParam, pageParams } from './paging.ts';

const state = z.enum(['pending', 'approved', 'denied', 'expired', 'cancelled', 'consumed']);
const decision = z.enum(['allow', 'deny', 'done', 'retry', 'skip']);

export const approval = z
  .object({
    id: z.string(),
    type: z.literal('approval'),
    session_id: z.string(),
    tool_use_id: z
      .string()
      .nullable()
      .meta({ description: 'Id of the agent.tool_use event it is about; null for one about the network' }),
    kind: z.enum(['effect', 'lost_effect', 'egress']),
    state,
    shown: z.looseObject({}).meta({ description: 'What the approver sees; the digest binds it' }),
    digest: z.string(),
    policy_version: z.string(),
    decision: decision.nullable(),
    edited_input: z.record(z.string(), z.unknown()).nullable(),
    message: z.string().nullable(),
    decided_by: z.string().nullable(),
    decided_at: time.nullable(),
    expires_at: time,
    consumed_at: time.nullable(),
    created_at: time,
  })
  .meta({ id: 'Approval' });
export type ApprovalResource = z.infer<typeof approval>;

export const approvalDecide = z
  .strictObject({
    decision: decision.meta({
      description: 'allow or deny a tool call; done, retry or skip one whose outcome is unknown',
    }),
    message: z.string().max(10_000).nullish().meta({ description: 'Told to the model' }),
    input: z.record(z.string(), z.unknown()).nullish().meta({ description: 'Edited arguments; only with allow' }),
  })
  .meta({ id: 'ApprovalDecide' });

export const approvalPath = z.object({ approval_id: z.string() });
export const approvalListQuery = z.strictObject({
  ...pageParams,
  state: z
    .enum([...state.options, 'all'])
    .optional()
    .meta({ description: 'Default: pending' }),
  session_id: idParam.optional(),
});
