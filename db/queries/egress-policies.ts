import type { AgentDefinition, EnvironmentConfig, SessionLimits } from '../../contracts/definitions.ts';
import type { EgressRule } from '../../contracts/networking.ts';
import type { SessionStatus } from '../../contracts/states.ts';
import type { Queryable } from '../pool.ts';
import { toCamel } from '../rows.ts';

/** What a team says about the network of all its sandboxes. */
export interface TeamEgressPolicy {
  rules: EgressRule[];
}

/** What the broker needs to know of a session. */
export interface EgressSession {
  id: string;
  teamId: string;
  createdBy: string;
  agentId: string;
  agentVersion: number;
  agent: AgentDefinition;
  environment: EnvironmentConfig;
  limits: SessionLimits;
  status: SessionStatus;
  closingAt: Date | null;
  teamPolicy: TeamEgressPolicy | null;
  /** Requests its sandboxes made before. */
  requests: number;
}

/** What a sandbox of an E2B program may reach: of public addresses only, whatever is allowed. */
export interface ProgramEgress {
  /** Every public host that is not denied. */
  internet: boolean;
  /** Hosts, patterns of hosts, addresses and networks; they go before what is denied. */
  allow: string[];
  /** Addresses and networks. */
  deny: string[];
}

/** What the broker needs to know of a sandbox of an E2B program: it belongs to the key's team, not to a session. */
export interface EgressProgram {
  sandboxId: string;
  teamId: string;
  createdBy: string;
  state: string;
  egress: ProgramEgress;
  teamPolicy: TeamEgressPolicy | null;
  requests: number;
}

/** Undefined when there is no such sandbox. */
export async function loadEgressProgram(db: Queryable, sandboxId: string): Promise<EgressProgram | undefined> {
  const result = await db.query(
    `SELECT b.id AS sandbox_id, b.team_id, b.created_by, b.state, b.egress, p.policy AS team_policy,
       (SELECT coalesce(sum(r.count), 0)::bigint FROM egress_requests r WHERE r.sandbox_id = b.id) AS requests
     FROM e2b_sandboxes b LEFT JOIN egress_policies p ON p.team_id = b.team_id WHERE b.id = $1`,
    [sandboxId],
  );
  return result.rows[0] === undefined ? undefined : toCamel<EgressProgram>(result.rows[0] as object);
}

/** Undefined when there is no such session. */
export async function loadEgressSession(db: Queryable, sessionId: string): Promise<EgressSession | undefined> {
  const result = await db.query(
    `SELECT s.id, s.team_id, s.created_by, s.agent_id, s.agent_version, s.agent, s.environment, s.limits, s.status, s.closing_at,
       p.policy AS team_policy,
       (SELECT coalesce(sum(newest.seq + counted.more), 0)::bigint FROM sandboxes b,
          LATERAL (SELECT max(seq) AS seq FROM egress_requests r WHERE r.sandbox_id = b.id) newest,
          LATERAL (SELECT coalesce(sum(count - 1), 0) AS more FROM egress_requests r
                   WHERE r.sandbox_id = b.id AND r.count > 1) counted
        WHERE b.session_id = s.id) AS requests
     FROM sessions s LEFT JOIN egress_policies p ON p.team_id = s.team_id WHERE s.id = $1`,
    [sessionId],
  );
  return result.rows[0] === undefined ? undefined : toCamel<EgressSession>(result.rows[0] as object);
}

export async function getEgressPolicy(
  db: Queryable,
  teamId: string,
): Promise<{ policy: TeamEgressPolicy; updatedAt: Date } | undefined> {
  const result = await db.query('SELECT policy, updated_at FROM egress_policies WHERE team_id = $1', [teamId]);
  return result.rows[0] === undefined
    ? undefined
    : toCamel<{ policy: TeamEgressPolicy; updatedAt: Date }>(result.rows[0] as object);
}

export async function setEgressPolicy(
  db: Queryable,
  teamId: string,
  policy: TeamEgressPolicy,
  updatedBy: string,
): Promise<Date> {
  const result = await db.query<{ updated_at: Date }>(
    `INSERT INTO egress_policies (team_id, policy, updated_by) VALUES ($1, $2, $3)
     ON CONFLICT (team_id) DO UPDATE SET policy = excluded.policy, updated_by = excluded.updated_by, updated_at = now()
     RETURNING updated_at`,
    [teamId, JSON.stringify(policy), updatedBy],
  );
  return result.rows[0]?.updated_at ?? new Date();
}
