import type { Queryable } from '../../db/pool.ts';
import type { SessionRow } from '../../db/queries/sessions.ts';
import { NO_USAGE, usageOfSessions } from '../../db/queries/usage.ts';
import { renderTotals } from './render.ts';
import { DIRECTORY, PROVIDER_ID } from './wire.ts';

/** The version of the API we speak. */
export const VERSION = '1.18.33';

/** Sessions as its clients list them; `harness` and `agent_id` are there for other clients of this API. */
export async function renderSessions(db: Queryable, rows: readonly SessionRow[]): Promise<object[]> {
  const usage = await usageOfSessions(
    db,
    rows.map((row) => row.id),
  );
  return rows.map((row) => ({
    id: row.id,
    slug: row.id,
    projectID: 'global',
    directory: DIRECTORY,
    title: row.title ?? 'Untitled session',
    version: VERSION,
    agent: row.agent.name,
    agent_id: row.agentId,
    harness: row.agent.harness,
    model: { id: row.agent.model.id, providerID: PROVIDER_ID },
    metadata: row.metadata,
    ...renderTotals(usage.get(row.id) ?? NO_USAGE),
    time: {
      created: row.createdAt.getTime(),
      updated: row.updatedAt.getTime(),
      ...(row.archivedAt === null ? {} : { archived: row.archivedAt.getTime() }),
    },
  }));
}

export async function renderSession(db: Queryable, row: SessionRow): Promise<object> {
  const [session] = await renderSessions(db, [row]);
  if (session === undefined) throw new Error('one row makes one session');
  return session;
}
