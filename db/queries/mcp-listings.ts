import type { McpListing } from '../../contracts/mcp.ts';
import type { Queryable } from '../pool.ts';
import { toCamel } from '../rows.ts';

/** What is known of these servers of a session, in their order; servers that were never asked are not among them. */
export async function listMcpListings(db: Queryable, sessionId: string, servers: string[]): Promise<McpListing[]> {
  const result = await db.query(
    `SELECT server, tools, error FROM session_mcp_listings WHERE session_id = $1 AND server = ANY($2)
     ORDER BY array_position($2, server)`,
    [sessionId, servers],
  );
  return result.rows.map((row: object) => toCamel<McpListing>(row));
}

/** Those that were never asked, did not answer, or were asked long ago. */
export async function staleMcpServers(
  db: Queryable,
  sessionId: string,
  servers: string[],
  ttlMs: number,
): Promise<string[]> {
  const result = await db.query<{ server: string }>(
    `SELECT server FROM unnest($2::text[]) AS asked (server) WHERE NOT EXISTS (
       SELECT 1 FROM session_mcp_listings l WHERE l.session_id = $1 AND l.server = asked.server AND l.error IS NULL
         AND l.listed_at > now() - make_interval(secs => $3 / 1000.0))`,
    [sessionId, servers, ttlMs],
  );
  return result.rows.map(({ server }) => server);
}

/** A server that does not answer now keeps the tools it told before. */
export async function putMcpListing(db: Queryable, sessionId: string, listing: McpListing): Promise<void> {
  await db.query(
    `INSERT INTO session_mcp_listings (session_id, server, tools, error) VALUES ($1, $2, $3, $4)
     ON CONFLICT (session_id, server) DO UPDATE SET error = excluded.error, listed_at = now(),
       tools = CASE WHEN excluded.error IS NULL THEN excluded.tools ELSE session_mcp_listings.tools END`,
    [sessionId, listing.server, JSON.stringify(listing.tools), listing.error],
  );
}
