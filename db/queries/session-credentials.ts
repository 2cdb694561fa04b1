import type {
  CredentialKind,
  CredentialSpec,
  PlaceholderShape,
  SessionCredential,
} from '../../contracts/credentials.ts';
import { newId } from '../../contracts/ids.ts';
import { notify } from '../listen.ts';
import type { Queryable } from '../pool.ts';
import { toCamel } from '../rows.ts';
import { insertAudit } from './audit.ts';
import { CREDENTIALS_CHANNEL } from './credentials.ts';

/** A credential a session ought to have, in the order in which names are given away. */
export interface SessionCandidate {
  credentialId: string;
  vaultId: string;
  version: number;
  kind: CredentialKind;
  name: string;
  spec: CredentialSpec;
  shape: PlaceholderShape;
}

/**
 * What the session's own vaults, then those bound to its deployment, agent, user and team hold. The rows are kept from
 * being edited until the transaction ends, so that no rule is copied that is old when the copy becomes visible.
 */
export async function findSessionCandidates(
  tx: Queryable,
  sessionId: string,
  limit: number,
): Promise<SessionCandidate[]> {
  const result = await tx.query(
    `WITH s AS (SELECT id, team_id, created_by, agent_id, deployment_id, vault_ids FROM sessions WHERE id = $1),
     named AS (
       SELECT n.vault_id, 0 AS rank, n.place::bigint AS place
       FROM s, jsonb_array_elements_text(s.vault_ids) WITH ORDINALITY AS n (vault_id, place)
       UNION ALL
       SELECT b.vault_id, CASE b.target_type WHEN 'deployment' THEN 1 WHEN 'agent' THEN 2 WHEN 'user' THEN 3 ELSE 4 END,
         row_number() OVER (ORDER BY b.created_at, b.id)
       FROM s JOIN vault_bindings b ON b.team_id = s.team_id AND (b.target_type, b.target_id) IN (
         ('deployment', s.deployment_id), ('agent', s.agent_id), ('user', s.created_by), ('team', s.team_id))
     ),
     placed AS (SELECT vault_id, min(rank * 1000000 + place) AS place FROM named GROUP BY vault_id)
     SELECT c.id AS credential_id, c.vault_id, c.current_version AS version, c.kind, c.name, c.spec, c.shape
     FROM placed p JOIN s ON true JOIN vaults v ON v.id = p.vault_id AND v.team_id = s.team_id
       JOIN credentials c ON c.vault_id = v.id
     WHERE v.archived_at IS NULL AND v.deleted_at IS NULL AND c.archived_at IS NULL AND c.deleted_at IS NULL
     ORDER BY p.place, c.created_at, c.id LIMIT $2
     FOR SHARE OF v, c`,
    [sessionId, limit],
  );
  return result.rows.map((row: object) => toCamel<SessionCandidate>(row));
}

const COLUMNS = `id, session_id, credential_id, vault_id, version, name, env, kind, placeholder, hosts, unrestricted, locations,
  header_name, template, username, methods, paths, created_at, revoked_at`;

/** Gives a credential to a session under a placeholder; false when the session has, or had, it already. */
export async function insertSessionCredential(
  tx: Queryable,
  sessionId: string,
  given: SessionCandidate,
  placeholder: string,
): Promise<boolean> {
  const { spec } = given;
  const result = await tx.query(
    `INSERT INTO session_credentials (id, session_id, credential_id, vault_id, version, name, env, kind, placeholder, hosts,
       unrestricted, locations, header_name, template, username, methods, paths)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
     ON CONFLICT (session_id, credential_id) DO NOTHING`,
    [
      newId('sessionCredential'),
      sessionId,
      given.credentialId,
      given.vaultId,
      given.version,
      given.name,
      spec.env,
      given.kind,
      placeholder,
      ...ruleValues(spec),
    ],
  );
  return (result.rowCount ?? 0) > 0;
}

/** All of a session, also revoked ones: a placeholder that no longer works still has to be known for one. */
export async function listSessionCredentials(db: Queryable, sessionId: string): Promise<SessionCredential[]> {
  const result = await db.query(
    `SELECT ${COLUMNS} FROM session_credentials WHERE session_id = $1 ORDER BY created_at, id`,
    [sessionId],
  );
  return result.rows.map((row: object) => toCamel<SessionCredential>(row));
}

/** Carries an edit of a credential's rules into the sessions that have it. */
export async function syncSessionRules(tx: Queryable, credentialId: string, spec: CredentialSpec): Promise<void> {
  await tx.query(
    `UPDATE session_credentials SET hosts = $2, unrestricted = $3, locations = $4, header_name = $5, template = $6,
       username = $7, methods = $8, paths = $9 WHERE id IN (
       SELECT id FROM session_credentials WHERE credential_id = $1 AND revoked_at IS NULL ORDER BY id FOR UPDATE)`,
    [credentialId, ...ruleValues(spec)],
  );
  await notify(tx, CREDENTIALS_CHANNEL, `credential:${credentialId}`);
}

/** Takes credentials from all sessions, or all of them from one session. Returns what was taken. */
export async function revokeSessionCredentials(
  tx: Queryable,
  where: { sessionId: string } | { credentialIds: string[] },
): Promise<{ sessionId: string; credentialId: string }[]> {
  const one = 'sessionId' in where;
  const result = await tx.query(
    `UPDATE session_credentials SET revoked_at = now() WHERE id IN (
       SELECT id FROM session_credentials WHERE ${one ? 'session_id = $1' : 'credential_id = ANY($1)'}
         AND revoked_at IS NULL ORDER BY id FOR UPDATE)
     RETURNING session_id, credential_id`,
    [one ? where.sessionId : where.credentialIds],
  );
  if (one) await notify(tx, CREDENTIALS_CHANNEL, `session:${where.sessionId}`);
  else for (const id of where.credentialIds) await notify(tx, CREDENTIALS_CHANNEL, `credential:${id}`);
  return result.rows.map((row: object) => toCamel<{ sessionId: string; credentialId: string }>(row));
}

/** The end of a session ends its use of credentials; brokers forget the values. */
export async function endSessionCredentials(tx: Queryable, sessionId: string): Promise<void> {
  const revoked = await revokeSessionCredentials(tx, { sessionId });
  if (revoked.length === 0) return;
  const result = await tx.query<{ team_id: string }>('SELECT team_id FROM sessions WHERE id = $1', [sessionId]);
  await insertAudit(tx, {
    teamId: result.rows[0]?.team_id ?? '',
    actor: 'workflow',
    action: 'credential.revoke',
    resource: sessionId,
    sessionId,
    details: { reason: 'session ended', credential_ids: revoked.map((row) => row.credentialId) },
  });
}

function ruleValues(spec: CredentialSpec): unknown[] {
  return [
    JSON.stringify(spec.hosts),
    spec.unrestricted,
    JSON.stringify(spec.locations),
    spec.headerName,
    spec.template,
    spec.username,
    spec.methods === null ? null : JSON.stringify(spec.methods),
    spec.paths === null ? null : JSON.stringify(spec.paths),
  ];
}
