import { createHash } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import canonicalize from 'canonicalize';
import { z } from 'zod';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { LIMITS } from '../../contracts/limits.ts';
import type { Pool } from '../../db/pool.ts';
import { inputPlace } from '../../db/queries/opencode-turns.ts';
import type { SessionRow } from '../../db/queries/sessions.ts';
import type { Watcher } from '../event-hub.ts';
import { onceUnderKey } from '../idempotency.ts';
import { sendEvents } from '../routes/send-events.ts';
import type { Services } from '../services.ts';
import { readConversation } from './read.ts';
import { renderMessage } from './render.ts';
import type { Call } from './request.ts';
import { callEndpoint, change, readBody } from './request.ts';
import { sessionOf } from './session-routes.ts';
import type { Message } from './wire.ts';

/** Clients give up on an answer that sends nothing. */
const KEEP_ALIVE_MS = 15_000;
/** `opencode run` ends with the answer, whatever of its event stream it has not read by then. */
const VIEWERS_FIRST_MS = 500;
/** A viewer that is slow keeps nobody waiting. */
const VIEWERS_MAX_MS = 3_000;
/** Turns among which an answer is looked for. */
const RECENT_TURNS = 50;

const name = z.string().min(1).max(LIMITS.nameChars);
const textPart = z.looseObject({ type: z.literal('text'), text: z.string().max(LIMITS.messageTextChars) });
const filePart = z.looseObject({
  type: z.literal('file'),
  mime: z.string().min(1).max(128),
  url: z.string().min(1).max(LIMITS.requestBodyBytes),
});
const agentPart = z.looseObject({ type: z.literal('agent') });

const prompt = z.looseObject({
  messageID: z
    .string()
    .regex(/^[\x21-\x7e]{1,128}$/, 'must be 1 to 128 visible ASCII characters')
    .nullish(),
  model: z.looseObject({ providerID: name, modelID: name }).nullish(),
  agent: name.nullish(),
  noReply: z.literal(false, { error: 'is not supported: every message starts a turn' }).nullish(),
  system: z.literal('', { error: 'is not supported: an agent has its system prompt' }).nullish(),
  format: z.looseObject({ type: z.literal('text', { error: 'is not supported' }) }).nullish(),
  parts: z
    .array(z.discriminatedUnion('type', [textPart, filePart, agentPart], { error: 'must be text or file' }))
    .min(1)
    .max(LIMITS.contentBlocksPerMessage),
});
type Prompt = z.output<typeof prompt>;

/** Accepts the message of a prompt; the same `messageID` again is the same message. Returns the event's id. */
async function accept(call: Call): Promise<{ session: SessionRow; eventId: string }> {
  const session = await sessionOf(call);
  const body = readBody(call, prompt);
  const event = {
    type: 'user.message',
    content: body.parts.map(blockOf),
    ...(body.model === undefined || body.model === null ? {} : { model: body.model.modelID }),
  };
  const eventId = await change(call, async (context) => {
    const { response } = await onceUnderKey(context.db, {
      principalId: call.principal.id,
      key:
        body.messageID === undefined || body.messageID === null
          ? undefined
          : `opencode/${session.id}/${body.messageID}`,
      route: `post ${session.id}/message`,
      bodyDigest: () =>
        createHash('sha256')
          .update(canonicalize(event) ?? '')
          .digest('hex'),
      work: async () => {
        const sent = await callEndpoint(context, sendEvents, {
          params: { session_id: session.id },
          body: { events: [event] },
        });
        return { eventId: (sent as { data: { id: string }[] }).data[0]?.id };
      },
      storable: (made) => made,
    });
    return (response as { eventId: string }).eventId;
  });
  return { session, eventId };
}

function blockOf(part: Prompt['parts'][number], index: number): object {
  switch (part.type) {
    case 'text':
      return { type: 'text', text: part.text };
    case 'file':
      return fileBlock(part, `parts[${index}].url`);
    case 'agent':
      throw new LonghaulError('invalid_request', 'other agents cannot be called from a message', {
        field: `parts[${index}].type`,
      });
  }
}

/** A file must come along: the server does not see the disk of the client. */
function fileBlock({ mime, url }: z.output<typeof filePart>, field: string): object {
  const [, kind, data] = /^data:([^;,]*)(?:;[^,]*)?;base64,(.*)$/s.exec(url) ?? [];
  if (data === undefined) throw new LonghaulError('invalid_request', 'must be a base64 data: URL', { field });
  const mediaType = kind === '' || kind === undefined ? mime : kind;
  if (mediaType === 'text/plain') {
    const source = { type: 'text', media_type: mediaType, data: Buffer.from(data, 'base64').toString('utf8') };
    return { type: 'document', source };
  }
  const source = { type: 'base64', media_type: mediaType, data };
  return { type: mediaType.startsWith('image/') ? 'image' : 'document', source };
}

export async function promptAsync(call: Call): Promise<undefined> {
  await accept(call);
  return undefined;
}

/** Answers with the turn's message once it has ended; the headers come at once, as from the original. */
export async function promptAndWait(call: Call): Promise<void> {
  const { session, eventId } = await accept(call);
  const { res, services } = call;
  res.status(200).type('application/json');
  res.flushHeaders();
  // Blanks before a value are JSON.
  const alive = setInterval(() => res.write(' '), KEEP_ALIVE_MS);
  try {
    const turn = await settled(services, session.id, eventId, call);
    await viewersFirst(services, session.id);
    if (res.destroyed) return;
    res.end(JSON.stringify(await replyOf(services.pool, session, eventId, turn)));
  } finally {
    clearInterval(alive);
  }
}

/** Those who watch see the end of a turn before its answer is given. */
async function viewersFirst(services: Services, sessionId: string): Promise<void> {
  const late = delay(VIEWERS_MAX_MS, false, { ref: false });
  if (await Promise.race([services.hub.settled(sessionId), late])) await delay(VIEWERS_FIRST_MS);
}

/** Waits until the message has its end; returns the turn that took it, if one did. */
async function settled(
  services: Services,
  sessionId: string,
  eventId: string,
  call: Call,
): Promise<number | undefined> {
  let wake: (() => void) | undefined;
  let stopped = false;
  const watcher: Watcher = {
    sessionId,
    lastSent: 0,
    wake: () => wake?.(),
    delta: () => undefined,
    end: () => {
      stopped = true;
      call.res.destroy();
      wake?.();
    },
  };
  const remove = services.hub.add(watcher);
  const hungUp = (): void => wake?.();
  call.res.once('close', hungUp);
  try {
    for (;;) {
      const grown = new Promise<void>((resolve) => (wake = resolve));
      const place = await inputPlace(services.pool, eventId).catch(() => undefined);
      if (place !== undefined && ['completed', 'failed', 'cancelled'].includes(place.state))
        return place.turn ?? undefined;
      if (stopped || call.res.destroyed) return undefined;
      await grown;
    }
  } finally {
    call.res.off('close', hungUp);
    remove();
  }
}

async function replyOf(pool: Pool, session: SessionRow, eventId: string, turn: number | undefined): Promise<Message> {
  const { conversation, turns } = await readConversation(pool, session, RECENT_TURNS);
  const view = turns.find((one) => one.turn === turn);
  const about = { sessionId: session.id, agent: session.agent };
  const held = conversation.messages.find(
    (message) => message.role === 'assistant' && message.end !== undefined && message.end.seq === view?.endSeq,
  );
  if (held !== undefined) return renderMessage(about, held, turns);
  const reason = (await inputPlace(pool, eventId))?.reason ?? 'the session has ended';
  const now = Date.now();
  const nothing = {
    role: 'assistant' as const,
    id: `msg_${eventId}`,
    seq: Number.MAX_SAFE_INTEGER,
    createdMs: now,
    parts: [],
    end: {
      seq: Number.MAX_SAFE_INTEGER,
      atMs: now,
      finish: 'stop',
      error: { name: 'MessageAbortedError' as const, data: { message: reason } },
    },
  };
  const { info } = renderMessage(about, nothing, []);
  return { info, parts: [] };
}
