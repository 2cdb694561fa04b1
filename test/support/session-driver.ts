import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { Client, Connection } from '@temporalio/client';
import pg from 'pg';
import { Recorder } from './recorder.ts';
import type { TestStack } from './stack.ts';
import { eventually, isRunning } from './stack.ts';

export type Query = <T>(sql: string, values?: unknown[]) => Promise<T[]>;

/** One answer of the scripted model. */
export interface ScriptStep {
  text?: string;
  tools?: { name: string; input: Record<string, unknown> }[];
  delayMs?: number;
  chunkMs?: number;
  chunks?: number;
  error?: { status: number; type?: string; message?: string; times?: number };
}

export interface Answer {
  status: number;
  // Tests look into answers of every shape.
  body: Record<string, unknown> & { id?: string; error?: { code?: string } };
}

/** One event as a viewer of the stream saw it. */
export interface Frame {
  id: number;
  type: string;
}

export interface Approval {
  id: string;
  effectId: string;
  kind: string;
  state: string;
  decision: string | null;
  decidedBy: string | null;
  generation: number;
}

type Policy = 'always_allow' | 'always_ask' | 'auto';

/**
 * Longer than the slowest recovery that a test provokes on a machine that is busy with other things. A frozen worker alone
 * keeps the tasks that its open polls are given until they time out: 10 s a task, one after the other.
 */
const PATIENCE_MS = 240_000;
/** For tests that wait so: what they wait for must be named in the failure, so the test itself has longer. */
export const STACK_TEST_MS = 300_000;

/** A tool call of the scripted model. */
export const bash = (
  command: string,
  more: Record<string, unknown> = {},
): NonNullable<ScriptStep['tools']>[number] => ({
  name: 'bash',
  input: { command, ...more },
});

/** A message that the scripted model plays. */
export function scriptMessage(steps: ScriptStep[]): { type: 'user.message'; content: string } {
  return { type: 'user.message', content: `Play this.\n\`\`\`script\n${JSON.stringify(steps)}\n\`\`\`` };
}

/** Drives sessions of a stack as a client would and looks at what became of them in the database. */
export class SessionDriver {
  readonly stack: TestStack;
  readonly recorder: Recorder;
  readonly query: Query;
  readonly #pool: pg.Pool;
  #temporal: Promise<Client> | undefined;
  #environment: Promise<string> | undefined;
  readonly #agents = new Map<Policy, Promise<string>>();

  constructor(stack: TestStack) {
    this.stack = stack;
    this.#pool = new pg.Pool({ connectionString: stack.devJson.databaseUrl, max: 4, connectionTimeoutMillis: 5_000 });
    this.#pool.on('error', () => undefined);
    this.query = (sql, values) => this.#read(sql, values);
    this.recorder = new Recorder(stack.home, this.query);
  }

  async close(): Promise<void> {
    await this.#pool.end();
    if (this.#temporal !== undefined) await (await this.#temporal).connection.close();
  }

  /** Sends SIGKILL and waits for nothing: the supervisor starts a successor. */
  kill(role: 'api' | 'worker' | 'egress' | 'temporal' | 'postgres'): void {
    if (!this.tryKill(role)) throw new Error(`${role} does not run`);
  }

  /** The same; false when it does not run just now: its number may be somebody else's. */
  tryKill(role: 'api' | 'worker' | 'egress' | 'temporal' | 'postgres'): boolean {
    const pid = this.stack.pids()[role];
    if (pid === null || !isRunning(pid)) return false;
    if (!readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(role)) return false;
    process.kill(pid, 'SIGKILL');
    return true;
  }

  /** A client of the stack's own Temporal server. */
  temporal(): Promise<Client> {
    const { temporalAddress: address, temporalNamespace: namespace } = this.stack.devJson;
    this.#temporal ??= Connection.connect({ address }).then((connection) => new Client({ connection, namespace }));
    return this.#temporal;
  }

  /** One request, no second try: `undefined` when no answer came. */
  async once(
    method: string,
    path: string,
    body?: unknown,
    key: string = randomUUID(),
    timeoutMs = 15_000,
  ): Promise<Answer | undefined> {
    try {
      const response = await fetch(`${this.stack.url}${path}`, {
        method,
        headers: {
          authorization: `Bearer ${this.stack.key}`,
          ...(method === 'POST' ? { 'idempotency-key': key, 'content-type': 'application/json' } : {}),
        },
        ...(method === 'POST' ? { body: JSON.stringify(body ?? {}) } : {}),
        signal: AbortSignal.timeout(timeoutMs),
      });
      return { status: response.status, body: (await response.json()) as Answer['body'] };
    } catch {
      return undefined;
    }
  }

  /** As a careful client: the same request with the same key until an answer comes that is not "try again". */
  async call(method: string, path: string, body?: unknown, key: string = randomUUID()): Promise<Answer> {
    const deadlineMs = Date.now() + PATIENCE_MS;
    for (;;) {
      const answer = await this.once(method, path, body, key);
      const passing = answer?.status === 503 || answer?.body.error?.code === 'idempotency_in_progress';
      if (answer !== undefined && !passing) return answer;
      if (Date.now() > deadlineMs) throw new Error(`${method} ${path}: no answer but ${JSON.stringify(answer)}`);
      await delay(50);
    }
  }

  async #made(path: string, body: unknown): Promise<string> {
    const answer = await this.call('POST', path, body);
    if (answer.status !== 200 || answer.body.id === undefined) {
      throw new Error(`POST ${path}: ${answer.status} ${JSON.stringify(answer.body)}`);
    }
    return answer.body.id;
  }

  environment(): Promise<string> {
    this.#environment ??= this.#made('/v1/environments', { name: 'chaos' });
    return this.#environment;
  }

  /** An agent of the scripted model whose bash follows `policy`; made once. */
  agent(policy: Policy = 'always_allow'): Promise<string> {
    const known = this.#agents.get(policy);
    if (known !== undefined) return known;
    const configs = [{ name: 'bash', permission_policy: { type: policy } }];
    const tools = [{ type: 'agent_toolset_20260401', configs }];
    const made = this.#made('/v1/agents', { name: `chaos ${policy}`, model: 'scripted', tools });
    this.#agents.set(policy, made);
    return made;
  }

  /** What `POST /v1/sessions` takes for a session that plays `steps`. */
  async sessionBody(steps: ScriptStep[], options: { policy?: Policy; limits?: object } = {}): Promise<object> {
    return {
      agent: await this.agent(options.policy),
      environment_id: await this.environment(),
      initial_events: [scriptMessage(steps)],
      ...(options.limits === undefined ? {} : { limits: options.limits }),
    };
  }

  /** Opens a session that plays `steps` at once. */
  async open(steps: ScriptStep[], options: { policy?: Policy; limits?: object } = {}): Promise<string> {
    return this.#made('/v1/sessions', await this.sessionBody(steps, options));
  }

  async send(sessionId: string, event: object): Promise<Answer> {
    return this.call('POST', `/v1/sessions/${sessionId}/events`, { events: [event] });
  }

  async decide(approvalId: string, decision: string, more: object = {}): Promise<Answer> {
    return this.call('POST', `/v1/approvals/${approvalId}/decide`, { decision, ...more });
  }

  /** The newest question of the session, when it is pending. */
  async pendingApproval(sessionId: string): Promise<Approval> {
    let found: Approval | undefined;
    await this.until(`${sessionId} asks`, async () => {
      [found] = await this.approvals(sessionId, `AND state = 'pending'`);
      const [session] = await this.query<{ status: string }>('SELECT status FROM sessions WHERE id = $1', [sessionId]);
      return found !== undefined && session?.status === 'idle';
    });
    return found as unknown as Approval;
  }

  approvals(sessionId: string, more = ''): Promise<Approval[]> {
    return this.query<Approval>(
      `SELECT id, effect_id AS "effectId", kind, state, decision, decided_by AS "decidedBy", generation
       FROM approvals WHERE session_id = $1 ${more} ORDER BY created_at DESC`,
      [sessionId],
    );
  }

  /** Waits for the command to have written its first (or last) line. */
  async ran(sessionId: string, key: string, what: 'starts' | 'ends' = 'starts', times = 1): Promise<void> {
    await this.until(`${key} ${what} ${times} times`, async () => {
      return (await this.recorder.traces(sessionId, key))[what] >= times;
    });
  }

  async until(what: string, condition: () => boolean | Promise<boolean>, timeoutMs = PATIENCE_MS): Promise<void> {
    await eventually(what, condition, timeoutMs);
  }

  /** Waits for a row: the condition is SQL over `sessions s` of this session. */
  async untilSql(what: string, sessionId: string, condition: string, timeoutMs = PATIENCE_MS): Promise<void> {
    const sql = `SELECT (${condition}) AS so FROM sessions s WHERE s.id = $1`;
    await this.until(
      `${what} (${sessionId})`,
      async () => (await this.query<{ so: boolean }>(sql, [sessionId]))[0]?.so === true,
      timeoutMs,
    );
  }

  /** Views the stream from after the last of `frames` until it breaks or `onFrame` says that this is enough. */
  async watch(sessionId: string, frames: Frame[], onFrame: () => boolean, signal?: AbortSignal): Promise<void> {
    let text = '';
    try {
      const response = await fetch(`${this.stack.url}/v1/sessions/${sessionId}/events/stream`, {
        headers: { authorization: `Bearer ${this.stack.key}`, 'last-event-id': String(frames.at(-1)?.id ?? 0) },
        ...(signal === undefined ? {} : { signal }),
      });
      if (response.status !== 200) return;
      for await (const chunk of response.body ?? []) {
        text += Buffer.from(chunk).toString('utf8');
        for (let end = text.indexOf('\n\n'); end !== -1; end = text.indexOf('\n\n')) {
          const frame = text.slice(0, end);
          text = text.slice(end + 2);
          const id = /^id: ?(\d+)$/m.exec(frame)?.[1];
          const type = /^event: ?(.+)$/m.exec(frame)?.[1] ?? '';
          if (id !== undefined && type !== 'ping') frames.push({ id: Number(id), type });
          if (onFrame()) return;
        }
      }
    } catch (error) {
      // A TypeError is how fetch says that the connection was lost.
      if (!(error instanceof TypeError) && signal?.aborted !== true) throw error;
    }
  }

  /** Stop reason of each turn, in order. */
  async turnEnds(sessionId: string): Promise<string[]> {
    const rows = await this.query<{ state: string; why: string | null }>(
      `SELECT state, stop_reason->>'type' AS why FROM turns WHERE session_id = $1 ORDER BY turn`,
      [sessionId],
    );
    return rows.map(({ state, why }) => why ?? state);
  }

  /** Waits until nothing is under way any more in these sessions; a pending question counts as under way. */
  async quiet(sessionIds: string[], timeoutMs = PATIENCE_MS): Promise<void> {
    let busy: unknown[] = [];
    const isQuiet = async (): Promise<boolean> => {
      busy = await this.query(
        `SELECT s.id, s.status,
           (SELECT json_agg(json_build_array(i.kind, i.state)) FROM inputs i WHERE i.session_id = s.id AND i.ended_at IS NULL) AS inputs,
           (SELECT json_agg(t.turn) FROM turns t WHERE t.session_id = s.id AND t.state = 'running') AS turns,
           (SELECT json_agg(json_build_array(e.id, e.tool, e.state)) FROM effects e WHERE e.session_id = s.id
              AND e.state NOT IN ('denied', 'succeeded', 'failed', 'unknown')) AS effects,
           (SELECT json_agg(m.idempotency_key) FROM model_calls m WHERE m.session_id = s.id AND m.state = 'in_flight') AS calls
         FROM sessions s WHERE s.id = ANY($1) AND (s.status NOT IN ('idle', 'terminated')
           OR s.current_turn = 0 AND s.status <> 'terminated'
           OR EXISTS (SELECT 1 FROM inputs i WHERE i.session_id = s.id AND i.ended_at IS NULL)
           OR EXISTS (SELECT 1 FROM turns t WHERE t.session_id = s.id AND t.state = 'running')
           OR EXISTS (SELECT 1 FROM model_calls m WHERE m.session_id = s.id AND m.state = 'in_flight'))`,
        [sessionIds],
      );
      return busy.length === 0;
    };
    try {
      await this.until('all is quiet', isQuiet, timeoutMs);
    } catch (error) {
      throw new Error(`still busy: ${JSON.stringify(busy)}`, { cause: error });
    }
  }

  /** The database may be down because a test killed it: reads are repeated until it answers. */
  async #read<T>(sql: string, values: unknown[] = []): Promise<T[]> {
    const deadlineMs = Date.now() + PATIENCE_MS;
    for (;;) {
      try {
        return (await this.#pool.query(sql, values)).rows as T[];
      } catch (error) {
        const code = error instanceof Error && 'code' in error ? String(error.code) : 'no code';
        const away = /^(08|57P|ECONN|EPIPE|no code)/.test(code) && !(error instanceof TypeError);
        if (!away || Date.now() > deadlineMs) throw error;
        await delay(50);
      }
    }
  }
}
