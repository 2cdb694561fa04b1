import { setTimeout as delay } from 'node:timers/promises';
import type { ApprovalShown } from '../../contracts/definitions.ts';
import { LIMITS } from '../../contracts/limits.ts';
import type { Pool } from '../../db/pool.ts';
import type { EgressGrant } from '../../db/queries/egress-approvals.ts';
import { askEgress, findGrant } from '../../db/queries/egress-approvals.ts';
import type { EgressSession } from '../../db/queries/egress-policies.ts';
import type { EgressTarget, SandboxIdentity } from '../decision.ts';
import type { SessionState } from './session-state.ts';

/** Version of what questions show; the record keeps it. */
const POLICY_VERSION = 'egress-1';
const POLL_MS = 250;
/** Less than a poll: who waits sees an answer at the next one. */
const SHARED_MS = 200;

/** What somebody is asked about. */
export interface Question {
  target: EgressTarget;
  method: string;
  /** null for a tunnel. */
  path: string | null;
  subject: string;
  rule: string;
}

export type Answer =
  | { action: 'allow'; approvalId: string }
  | { action: 'deny'; approvalId: string | null; code: string; message: string };

/** Puts questions about the network to people and waits a little for the answer. */
export class Asks {
  readonly #pool: Pool;
  readonly #holdMs: number;
  /** Answers that still hold, by session and subject. */
  readonly #grants = new Map<string, EgressGrant>();
  /** Looks at Postgres that are not old: a thousand requests that wait for one answer share them. */
  readonly #looks = new Map<string, Promise<EgressGrant | undefined>>();

  constructor(pool: Pool, holdMs: number) {
    this.#pool = pool;
    this.#holdMs = holdMs;
  }

  async ask(state: SessionState, sandbox: SandboxIdentity, question: Question, signal: AbortSignal): Promise<Answer> {
    const { session } = state;
    if (session === null) {
      const message = `${question.target.host} needs the approval of a person, and a sandbox without a session has nobody to ask`;
      return refuse(null, 'nobody_to_ask', message);
    }
    const known = await this.#grant(session.id, question.subject);
    if (known !== undefined) return answered(known, question);
    const asked = await askEgress(this.#pool, {
      sessionId: session.id,
      teamId: session.teamId,
      subject: question.subject,
      shown: shownOf({ state, session }, sandbox, question),
      policyVersion: POLICY_VERSION,
      expiresAt: expiryOf(session),
      maxPending: LIMITS.egressPendingAsks,
    });
    if (asked === 'over') return refuse(null, 'session_over', 'the session has ended');
    if (asked === 'full') {
      return refuse(
        null,
        'too_many_questions',
        `${question.target.host} is not allowed, and too many questions of this session are open to ask about it`,
      );
    }
    const grant = await this.#wait(session.id, question.subject, signal);
    if (grant !== undefined) return answered(grant, question);
    return refuse(
      asked.approvalId,
      'waiting_for_approval',
      `${question.target.host} needs the approval of a person: waiting for approval ${asked.approvalId}. Try again later; until then go on without it.`,
    );
  }

  /** Answers of this session are read anew. */
  forget(sessionId: string): void {
    for (const key of this.#grants.keys()) if (key.startsWith(`${sessionId} `)) this.#grants.delete(key);
  }

  async #wait(sessionId: string, subject: string, signal: AbortSignal): Promise<EgressGrant | undefined> {
    const until = Date.now() + this.#holdMs;
    while (Date.now() < until && !signal.aborted) {
      const grant = await this.#grant(sessionId, subject, true);
      if (grant !== undefined) return grant;
      await delay(POLL_MS, undefined, { signal }).catch(() => undefined);
    }
    return this.#grant(sessionId, subject);
  }

  async #grant(sessionId: string, subject: string, isWaiting = false): Promise<EgressGrant | undefined> {
    const key = `${sessionId} ${subject}`;
    const held = this.#grants.get(key);
    if (held !== undefined && held.expiresAt.getTime() > Date.now()) return held;
    const recent = isWaiting ? this.#looks.get(key) : undefined;
    const grant = await (recent ?? this.#look(key, sessionId, subject));
    if (grant === undefined) this.#grants.delete(key);
    else this.#grants.set(key, grant);
    return grant;
  }

  #look(key: string, sessionId: string, subject: string): Promise<EgressGrant | undefined> {
    const look = findGrant(this.#pool, sessionId, subject);
    this.#looks.set(key, look);
    const drop = (): void => {
      if (this.#looks.get(key) === look) this.#looks.delete(key);
    };
    look.then(() => setTimeout(drop, SHARED_MS).unref(), drop);
    return look;
  }
}

function answered(grant: EgressGrant, question: Question): Answer {
  if (grant.isAllowed) return { action: 'allow', approvalId: grant.approvalId };
  const message = `a person refused ${question.target.host} (approval ${grant.approvalId}). Do not try it again.`;
  return refuse(grant.approvalId, 'denied_by_person', message);
}

function refuse(approvalId: string | null, code: string, message: string): Answer {
  return { action: 'deny', approvalId, code, message };
}

function expiryOf(session: EgressSession): Date {
  const ttlMs = Math.min(session.limits.approval_ttl_ms ?? LIMITS.approvalTtlMs, LIMITS.approvalTtlMaxMs);
  return new Date(Date.now() + ttlMs);
}

/** What a person sees, in the same shape as for a tool call. */
function shownOf(
  { state, session }: { state: SessionState; session: EgressSession },
  sandbox: SandboxIdentity,
  question: Question,
): ApprovalShown {
  const { target, method, path } = question;
  const url = `${target.isTls ? 'https' : 'http'}://${target.host}:${target.port}${(path ?? '').slice(0, 1_000)}`;
  return {
    kind: 'egress',
    effect_id: null,
    tool: 'network',
    input: {
      host: target.host,
      port: target.port,
      method,
      path: path?.slice(0, 1_000) ?? null,
      subject: question.subject,
    },
    preview: `${method} ${url}`,
    preview_truncated: false,
    sandbox: { id: sandbox.sandboxId, provider: providerOf(session), isolation: 'unknown', network: 'broker' },
    credentials: state.live.filter((one) => one.unrestricted || one.hosts.includes(target.host)).map((one) => one.name),
    files_read: [],
    hosts_touched: [target.host],
    agent: { id: session.agentId, version: session.agentVersion, name: session.agent.name },
    session_id: session.id,
    started_by: session.createdBy,
    reason: question.rule === 'unmatched' ? 'no rule allows this host' : `rule ${question.rule} asks`,
    expires_at: expiryOf(session).toISOString(),
  };
}

function providerOf({ environment }: EgressSession): string {
  return environment.type === 'cloud' ? environment.provider : 'self_hosted';
}
