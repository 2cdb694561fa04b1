import { LIMITS } from '../../contracts/limits.ts';
import { withTransaction, type Pool, type Queryable } from '../pool.ts';
import { toCamel } from '../rows.ts';
import { insertAudit } from './audit.ts';

/** Parts of a prompt that ought to be the same in every call of an agent version. */
export type PrefixPart = 'tools' | 'system' | 'skills';
const PARTS: readonly PrefixPart[] = ['tools', 'system', 'skills'];

/** A static prefix: a digest of each part, and one of all. */
export interface PromptPrefix {
  fingerprint: string;
  digests: Record<PrefixPart, string>;
  sizeBytes: number;
}

interface PrefixRow {
  fingerprint: string;
  toolsDigest: string;
  systemDigest: string;
  skillsDigest: string;
  sizeBytes: number;
  changed: PrefixPart[];
  firstSeenAt: Date;
}

/**
 * Remembers a prefix. Returns the parts in which it differs from the one seen before, when it is new to a version that
 * had one already: each change is told once, by whichever process sees it first.
 */
export async function recordPrefix(
  pool: Pool,
  agent: { id: string; version: number; teamId: string; sessionId: string | null },
  prefix: PromptPrefix,
): Promise<PrefixPart[] | undefined> {
  return withTransaction(pool, async (tx) => {
    // Two new prefixes at once: the second must see the first.
    await tx.query('SELECT 1 FROM agent_versions WHERE agent_id = $1 AND version = $2 FOR NO KEY UPDATE', [
      agent.id,
      agent.version,
    ]);
    const known = await listPrefixes(tx, agent.id, agent.version);
    if (known.some((row) => row.fingerprint === prefix.fingerprint)) return undefined;
    // A prompt that is never the same twice is known to be so by now.
    if (known.length >= LIMITS.promptPrefixesPerVersion) return undefined;
    const [before] = known;
    const { digests } = prefix;
    const changed = before === undefined ? [] : PARTS.filter((part) => digestsOf(before)[part] !== digests[part]);
    await tx.query(
      `INSERT INTO prompt_prefixes
         (agent_id, agent_version, fingerprint, tools_digest, system_digest, skills_digest, size_bytes, changed)
       VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
      [
        agent.id,
        agent.version,
        prefix.fingerprint,
        digests.tools,
        digests.system,
        digests.skills,
        prefix.sizeBytes,
        JSON.stringify(changed),
      ],
    );
    if (before === undefined) return undefined;
    await insertAudit(tx, {
      teamId: agent.teamId,
      actor: 'gateway',
      action: 'prompt.prefix_changed',
      resource: agent.id,
      sessionId: agent.sessionId ?? undefined,
      digest: prefix.fingerprint,
      details: { agent_version: agent.version, changed, before: before.fingerprint },
    });
    return changed;
  });
}

/** Prefixes of a version, newest first. */
export async function listPrefixes(db: Queryable, agentId: string, version: number): Promise<PrefixRow[]> {
  const { rows } = await db.query(
    `SELECT fingerprint, tools_digest, system_digest, skills_digest, size_bytes, changed, first_seen_at
     FROM prompt_prefixes WHERE agent_id = $1 AND agent_version = $2 ORDER BY first_seen_at DESC, fingerprint`,
    [agentId, version],
  );
  return rows.map((row) => toCamel<PrefixRow>(row as object));
}

/** The digest of each part. */
export function digestsOf(row: PrefixRow): Record<PrefixPart, string> {
  return { tools: row.toolsDigest, system: row.systemDigest, skills: row.skillsDigest };
}
