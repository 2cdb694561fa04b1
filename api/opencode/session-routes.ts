import { z } from 'zod';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { LIMITS } from '../../contracts/limits.ts';
import type { SessionResource } from '../../contracts/sessions.ts';
import { listApprovals } from '../../db/queries/approvals.ts';
import { getSession, listSessions } from '../../db/queries/sessions.ts';
import { archiveSession } from '../routes/archive-session.ts';
import { createSession } from '../routes/create-session.ts';
import { deleteSession } from '../routes/delete-session.ts';
import { sendEvents } from '../routes/send-events.ts';
import { updateSession } from '../routes/update-session.ts';
import { chooseAgent, chooseEnvironment } from './catalogue.ts';
import { readConversation } from './read.ts';
import { renderMessage } from './render.ts';
import type { Call } from './request.ts';
import { callEndpoint, change, queryInt, readBody } from './request.ts';
import { renderSession, renderSessions } from './session-view.ts';
import type { Message, Status } from './wire.ts';

const name = z.string().min(1).max(LIMITS.nameChars);
const empty = z.union([z.array(z.unknown()).max(0), z.strictObject({})]).nullish();

/**
 * Fields that would change what a session may do are refused, for silence would be a promise; but for `permission`, which
 * `opencode run` sends: the agent's own permissions hold.
 */
const create = z.looseObject({
  title: z.string().max(LIMITS.titleChars).nullish(),
  agent: name.nullish(),
  harness: name.nullish(),
  environment: name.nullish(),
  model: z.looseObject({ id: name, providerID: name }).nullish(),
  metadata: z.record(z.string(), z.unknown()).nullish(),
  parentID: z.null().optional(),
  permission: z.array(z.unknown()).max(1_000).nullish(),
  systemPrompt: z.null().optional(),
  files: empty,
});

const update = z.looseObject({
  title: z.string().max(LIMITS.titleChars).optional(),
  time: z.looseObject({ archived: z.number().nonnegative().optional() }).optional(),
  permission: empty,
  metadata: empty,
});

/** The session of a path, of the caller's team. */
export function sessionOf(call: Call): ReturnType<typeof getSession> {
  return getSession(call.services.pool, call.principal.teamId, call.params['sessionID'] ?? '');
}

export async function postSession(call: Call): Promise<object> {
  const body = readBody(call, create);
  const { teamId } = call.principal;
  const defaults = call.services.config.opencode ?? { agentId: '', environmentId: '' };
  const made = await change(call, async (context) => {
    const asked = { agent: body.agent ?? undefined, harness: body.harness ?? undefined, configured: defaults.agentId };
    const agent = await chooseAgent(context.db, teamId, asked);
    const environment = { id: body.environment ?? undefined, configured: defaults.environmentId };
    const session = (await callEndpoint(context, createSession, {
      body: {
        agent: agent.id,
        environment_id: await chooseEnvironment(context.db, teamId, environment),
        ...((body.title ?? '') === '' ? {} : { title: body.title }),
        labels: ['opencode'],
      },
    })) as SessionResource;
    context.afterCommit(async () => call.services.hub.tell(session.id));
    return session;
  });
  return renderSession(call.services.pool, await getSession(call.services.pool, teamId, made.id));
}

export async function getSessions(call: Call): Promise<object[]> {
  const { pool } = call.services;
  const limit = queryInt(call, 'limit', { min: 1, max: LIMITS.pageSizeMax, absent: 100 });
  const start = queryInt(call, 'start', { min: 0, max: Number.MAX_SAFE_INTEGER, absent: 0 });
  const search = call.query.get('search')?.toLowerCase() ?? '';
  const filtered = start > 0 || search !== '';
  const page = await listSessions(
    pool,
    { teamId: call.principal.teamId, includeArchived: false },
    { limit: filtered ? LIMITS.pageSizeMax : limit },
  );
  const rows = page.data.filter(
    (row) => row.updatedAt.getTime() >= start && (row.title ?? '').toLowerCase().includes(search),
  );
  return renderSessions(pool, rows.slice(0, limit));
}

export async function getOneSession(call: Call): Promise<object> {
  return renderSession(call.services.pool, await sessionOf(call));
}

export async function patchSession(call: Call): Promise<object> {
  const body = readBody(call, update);
  const params = { session_id: (await sessionOf(call)).id };
  await change(call, async (context) => {
    if (body.title !== undefined) await callEndpoint(context, updateSession, { params, body: { title: body.title } });
    if (body.time?.archived !== undefined) await callEndpoint(context, archiveSession, { params });
  });
  return getOneSession(call);
}

export async function removeSession(call: Call): Promise<boolean> {
  const params = { session_id: (await sessionOf(call)).id };
  await change(call, (context) => callEndpoint(context, deleteSession, { params }));
  return true;
}

/** Sessions that work or wait for a person; all others are idle. */
export async function getStatuses(call: Call): Promise<Record<string, Status>> {
  const { pool } = call.services;
  const { teamId } = call.principal;
  const limit = LIMITS.pageSizeMax;
  const atWork = await listSessions(
    pool,
    { teamId, includeArchived: false, statuses: ['running', 'rescheduling'] },
    { limit },
  );
  const asking = await listApprovals(pool, { teamId, state: 'pending' }, { limit });
  const ids = [
    ...atWork.data.map((row) => row.id),
    ...asking.data.flatMap((row) => (row.kind === 'egress' ? [] : [row.sessionId])),
  ];
  return Object.fromEntries(ids.map((id) => [id, { type: 'busy' as const }]));
}

export async function abortSession(call: Call): Promise<boolean> {
  const session = await sessionOf(call);
  // Nothing to end; an interrupt that waits would end the next turn's first moment.
  if (session.status === 'idle' && session.stopReason?.type !== 'requires_action') return true;
  await change(call, (context) =>
    callEndpoint(context, sendEvents, {
      params: { session_id: session.id },
      body: { events: [{ type: 'user.interrupt' }] },
    }),
  );
  return true;
}

export async function getMessages(call: Call): Promise<Message[]> {
  const session = await sessionOf(call);
  if (call.query.has('before')) {
    throw new LonghaulError('invalid_request', 'is not supported; read the log for what is older', { field: 'before' });
  }
  const limit = queryInt(call, 'limit', { min: 1, max: LIMITS.opencodeTurnsMax, absent: LIMITS.opencodeTurns });
  const { conversation, turns } = await readConversation(call.services.pool, session, limit);
  const about = { sessionId: session.id, agent: session.agent };
  return conversation.messages.slice(-limit).map((held) => renderMessage(about, held, turns));
}

export async function getMessage(call: Call): Promise<Message> {
  const session = await sessionOf(call);
  const { conversation, turns } = await readConversation(call.services.pool, session, LIMITS.opencodeTurnsMax);
  const id = call.params['messageID'];
  const held = conversation.messages.find((message) => message.id === id);
  if (held === undefined) throw new LonghaulError('not_found', 'there is no such message');
  return renderMessage({ sessionId: session.id, agent: session.agent }, held, turns);
}

export async function getTodos(call: Call): Promise<object[]> {
  const session = await sessionOf(call);
  return (await readConversation(call.services.pool, session, LIMITS.opencodeTurns)).conversation.todos;
}
