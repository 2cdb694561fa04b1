import { z } from 'zod';
import { time } from './fields.ts';
import { LIMITS } from './limits.ts';
import { createdFilters, idParam, intParam, orderParam, pageParams } from './paging.ts';

const textBlock = z.strictObject({ type: z.literal('text'), text: z.string().min(1).max(LIMITS.messageTextChars) });
const url = z.url({ protocol: /^https?$/, error: 'must be an http or https URL' }).max(4_096);
const base64 = z.base64({ error: 'must be base64' }).min(1);
const imageBlock = z.strictObject({
  type: z.literal('image'),
  source: z.discriminatedUnion('type', [
    z.strictObject({
      type: z.literal('base64'),
      media_type: z.enum(['image/png', 'image/jpeg', 'image/gif', 'image/webp']),
      data: base64,
    }),
    z.strictObject({ type: z.literal('url'), url }),
  ]),
});
const documentBlock = z.strictObject({
  type: z.literal('document'),
  source: z.discriminatedUnion('type', [
    z.strictObject({ type: z.literal('base64'), media_type: z.string().min(1).max(128), data: base64 }),
    z.strictObject({
      type: z.literal('text'),
      media_type: z.literal('text/plain'),
      data: z.string().max(LIMITS.messageTextChars),
    }),
    z.strictObject({ type: z.literal('url'), url }),
  ]),
  title: z.string().max(LIMITS.titleChars).nullable().exactOptional(),
  context: z.string().max(LIMITS.messageTextChars).nullable().exactOptional(),
});
const blocks = z
  .array(
    z.discriminatedUnion('type', [textBlock, imageBlock, documentBlock], { error: 'must be text, image or document' }),
  )
  .max(LIMITS.contentBlocksPerMessage);
/** A plain string is one text block. */
const content = z.union([
  z
    .string()
    .min(1)
    .max(LIMITS.messageTextChars)
    .transform((text) => [{ type: 'text' as const, text }]),
  blocks.min(1),
]);
const toolUseId = z.string().min(1).max(128);
const primaryThread = z
  .string()
  .nullish()
  .meta({ description: 'The primary thread; other threads are not supported yet' });

const userMessage = z
  .strictObject({
    type: z.literal('user.message'),
    content,
    model: z
      .string()
      .trim()
      .min(1)
      .max(LIMITS.nameChars)
      .optional()
      .meta({ description: 'Model of the turn this starts' }),
  })
  .meta({ id: 'UserMessage' });
const userInterrupt = z.strictObject({ type: z.literal('user.interrupt'), session_thread_id: primaryThread });
const userToolConfirmation = z.strictObject({
  type: z.literal('user.tool_confirmation'),
  tool_use_id: toolUseId,
  result: z.enum(['allow', 'deny']),
  deny_message: z.string().max(10_000).nullish(),
  session_thread_id: primaryThread,
});
const userCustomToolResult = z.strictObject({
  type: z.literal('user.custom_tool_result'),
  custom_tool_use_id: toolUseId,
  content: z
    .union([
      z
        .string()
        .max(LIMITS.messageTextChars)
        .transform((text) => [{ type: 'text' as const, text }]),
      blocks,
    ])
    .optional(),
  is_error: z.boolean().nullish(),
  session_thread_id: primaryThread,
});

const CLIENT_EVENTS = 'user.message, user.interrupt, user.tool_confirmation or user.custom_tool_result';
function unknownType(subject: { input?: unknown }): string {
  const given =
    typeof subject.input === 'object' && subject.input !== null && 'type' in subject.input
      ? subject.input.type
      : undefined;
  return typeof given === 'string'
    ? `${given.slice(0, 64)} is not accepted; send ${CLIENT_EVENTS}`
    : `must be ${CLIENT_EVENTS}`;
}

export const clientEvent = z.discriminatedUnion(
  'type',
  [userMessage, userInterrupt, userToolConfirmation, userCustomToolResult],
  { error: unknownType },
);
export type ClientEvent = z.infer<typeof clientEvent>;

export const eventsSend = z
  .strictObject({ events: z.array(clientEvent).min(1).max(LIMITS.eventsPerSend) })
  .meta({ id: 'EventsSend' });

export const initialEvent = z.discriminatedUnion('type', [userMessage], {
  error: (issue) => `${unknownType(issue).split(' is not')[0] ?? ''}: an initial event must be user.message`,
});
export type InitialEvent = z.infer<typeof initialEvent>;

/** One row of a session's log: `seq` and `created_at` are Longhaul's own. */
export const sessionEvent = z
  .looseObject({
    id: z.string(),
    type: z.string(),
    seq: z.number().int(),
    created_at: time,
    processed_at: time.nullable(),
  })
  .meta({ id: 'SessionEvent' });
export type SessionEvent = z.infer<typeof sessionEvent>;

export const eventsSent = z.object({ data: z.array(sessionEvent) });
export const eventListQuery = z.strictObject({
  ...pageParams,
  ...createdFilters,
  order: orderParam.optional(),
  'types[]': z.array(z.string().max(128)).max(64).optional(),
});
export const eventStreamQuery = z.strictObject({
  after: intParam(0, Number.MAX_SAFE_INTEGER)
    .optional()
    .meta({ description: 'Replay events with a greater seq first' }),
  'event_deltas[]': z
    .array(z.enum(['agent.message', 'agent.thinking']))
    .max(8)
    .optional()
    .meta({ description: 'Also send live previews of these events' }),
});
export const sessionPath = z.object({ session_id: z.string() });
export const sessionIdFilter = idParam.optional();
