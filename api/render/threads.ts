import type { z } from 'zod';
import type { SessionResource, sessionThread } from '../../contracts/sessions.ts';

/** Every session has one thread until subagents come. */
export function primaryThreadId(sessionId: string): string {
  return sessionId.replace(/^[a-z]+_/, 'sthr_');
}

export function renderPrimaryThread(session: SessionResource): z.infer<typeof sessionThread> {
  return {
    id: primaryThreadId(session.id),
    type: 'session_thread',
    session_id: session.id,
    parent_thread_id: null,
    workflow_run_id: null,
    agent: session.agent,
    status: session.status,
    stats: session.stats,
    usage: session.usage,
    created_at: session.created_at,
    updated_at: session.updated_at,
    archived_at: session.archived_at,
  };
}
