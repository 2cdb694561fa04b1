import type { Pool, Queryable } from '../pool.ts';
import { withTransaction } from '../pool.ts';
import { toCamel } from '../rows.ts';
import { insertAudit } from './audit.ts';

/** Where a cache is: at the provider (`prompt`), or here. */
export type CacheLayer = 'prompt' | 'response' | 'content';

export interface CacheCount {
  agentId: string;
  agentVersion: number;
  layer: CacheLayer;
  hits: number;
  misses: number;
}

/** Adds to the counts of agent versions; locks are taken in one order, so that two processes cannot wait for each other. */
export async function addCacheCounts(db: Queryable, counts: readonly CacheCount[]): Promise<void> {
  await db.query(
    `INSERT INTO cache_counts AS c (agent_id, agent_version, layer, hits, misses)
     SELECT agent_id, agent_version, layer, hits, misses
     FROM jsonb_to_recordset($1::jsonb)
       AS r(agent_id text, agent_version integer, layer text, hits bigint, misses bigint)
     ORDER BY agent_id, agent_version, layer
     ON CONFLICT (agent_id, agent_version, layer) DO UPDATE
       SET hits = c.hits + excluded.hits, misses = c.misses + excluded.misses`,
    [
      JSON.stringify(
        counts.map((count) => ({
          agent_id: count.agentId,
          agent_version: count.agentVersion,
          layer: count.layer,
          hits: count.hits,
          misses: count.misses,
        })),
      ),
    ],
  );
}

export async function listCacheCounts(db: Queryable, agentId: string, version: number): Promise<CacheCount[]> {
  const { rows } = await db.query(
    `SELECT agent_id, agent_version, layer, hits, misses FROM cache_counts
     WHERE agent_id = $1 AND agent_version = $2 ORDER BY layer`,
    [agentId, version],
  );
  return rows.map((row) => toCamel<CacheCount>(row as object));
}

export interface RateDrop {
  teamId: string;
  agentId: string;
  agentVersion: number;
  layer: CacheLayer;
  /** Between 0 and 1. */
  average: number;
  recent: number;
}

/** Puts a drop of a hit rate on record, beside the last change of the version's prefix. Returns when that was. */
export async function recordRateDrop(pool: Pool, drop: RateDrop): Promise<Date | null> {
  return withTransaction(pool, async (tx) => {
    const { rows } = await tx.query<{ first_seen_at: Date; changed: string[] }>(
      `SELECT first_seen_at, changed FROM prompt_prefixes
       WHERE agent_id = $1 AND agent_version = $2 AND changed <> '[]' ORDER BY first_seen_at DESC LIMIT 1`,
      [drop.agentId, drop.agentVersion],
    );
    const [change] = rows;
    await insertAudit(tx, {
      teamId: drop.teamId,
      actor: 'gateway',
      action: 'cache.hit_rate_dropped',
      resource: drop.agentId,
      details: {
        agent_version: drop.agentVersion,
        layer: drop.layer,
        average: Number(drop.average.toFixed(3)),
        recent: Number(drop.recent.toFixed(3)),
        prefix_changed_at: change?.first_seen_at.toISOString() ?? null,
        prefix_changed: change?.changed ?? [],
      },
    });
    return change?.first_seen_at ?? null;
  });
}
