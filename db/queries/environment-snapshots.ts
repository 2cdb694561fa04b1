import type { Queryable } from '../pool.ts';
import type { StoredSnapshot } from './sandboxes.ts';

interface Place {
  hash: string;
  provider: string;
  owner: string;
}

/** A saved set-up; asking for it counts as using it. */
export async function useEnvironmentSnapshot(db: Queryable, place: Place): Promise<StoredSnapshot | null> {
  const result = await db.query<{ ref: StoredSnapshot }>(
    `UPDATE environment_snapshots SET last_used_at = now() WHERE hash = $1 AND provider = $2 AND owner = $3 RETURNING ref`,
    [place.hash, place.provider, place.owner],
  );
  return result.rows[0]?.ref ?? null;
}

/** False when another session was first. */
export async function insertEnvironmentSnapshot(
  db: Queryable,
  place: Place,
  saved: { teamId: string; ref: StoredSnapshot },
): Promise<boolean> {
  const result = await db.query(
    `INSERT INTO environment_snapshots (hash, provider, owner, team_id, ref) VALUES ($1, $2, $3, $4, $5)
     ON CONFLICT DO NOTHING`,
    [place.hash, place.provider, place.owner, saved.teamId, JSON.stringify(saved.ref)],
  );
  return result.rowCount !== 0;
}

/** Only while it is still this one. */
export async function deleteEnvironmentSnapshot(db: Queryable, place: Place, refId: string): Promise<void> {
  await db.query(
    `DELETE FROM environment_snapshots WHERE hash = $1 AND provider = $2 AND owner = $3 AND ref->>'id' = $4`,
    [place.hash, place.provider, place.owner, refId],
  );
}

/**
 * Takes out of the record saved set-ups nobody has used for long, and those beyond the newest `keep`: nothing begins from
 * them any more. Never one that a sandbox is being made from, nor one used within `restMs`: whoever found it may be about to
 * write that down.
 */
export async function takeOldEnvironmentSnapshots(
  db: Queryable,
  owner: string,
  bounds: { ttlMs: number; keep: number; restMs: number; limit: number },
): Promise<(Place & { ref: StoredSnapshot })[]> {
  const result = await db.query<Place & { ref: StoredSnapshot }>(
    `WITH old AS (
       SELECT hash, provider, owner FROM (
         SELECT *, row_number() OVER (PARTITION BY provider ORDER BY last_used_at DESC) AS place
         FROM environment_snapshots WHERE owner = $1) AS ranked
       WHERE (place > $2 OR last_used_at < now() - make_interval(secs => $3 / 1000.0))
         AND NOT EXISTS (SELECT 1 FROM sandboxes b WHERE b.provider = ranked.provider AND b.ref IS NULL
           AND b.state <> 'destroyed' AND b.start->'ref'->>'id' = ranked.ref->>'id')
       ORDER BY last_used_at LIMIT $4)
     DELETE FROM environment_snapshots s USING old
     WHERE (s.hash, s.provider, s.owner) = (old.hash, old.provider, old.owner)
       AND s.last_used_at < now() - make_interval(secs => $5 / 1000.0)
     RETURNING s.hash, s.provider, s.owner, s.ref`,
    [owner, bounds.keep, bounds.ttlMs, bounds.limit, bounds.restMs],
  );
  return result.rows;
}
