import { makeAgent, type TestApi } from '../api/support.ts';
import { scriptMessage, type ScriptStep } from './session-driver.ts';
import { eventually } from './stack.ts';

/** Longer than anything takes that a test waits for on a busy machine; tests that wait so have twice as long. */
export const BED_PATIENCE_MS = 240_000;

/** The built-in tools, all of them allowed or all of them asking. */
export const toolset = (policy: 'always_allow' | 'always_ask'): object => ({
  type: 'agent_toolset_20260401',
  default_config: { permission_policy: { type: policy } },
});

/** SQL: the session waits for a client. */
export const ASKING = `s.status = 'idle' AND s.stop_reason->>'type' = 'requires_action'`;
/** SQL: as many turns as there are messages have ended. */
export const TURNS_OVER = `s.current_turn > 0 AND s.status IN ('idle', 'terminated')
  AND NOT EXISTS (SELECT 1 FROM turns t WHERE t.session_id = s.id AND t.state = 'running')
  AND NOT EXISTS (SELECT 1 FROM inputs i WHERE i.session_id = s.id AND i.kind = 'message' AND i.ended_at IS NULL)`;

/** Drives sessions of an api and worker that run in the process of the test. */
export class BedDriver {
  private readonly api: TestApi;

  constructor(api: TestApi) {
    this.api = api;
  }

  /** Opens a session whose first message is given, or plays `first` when it is a script. */
  async open(first: ScriptStep[] | object, tools: object[] = []): Promise<string> {
    const { agentId, environmentId } = await makeAgent(this.api, { tools });
    const message = Array.isArray(first) ? scriptMessage(first as ScriptStep[]) : first;
    const made = await this.api
      .post('/v1/sessions', { agent: agentId, environment_id: environmentId, initial_events: [message] })
      .expect(200);
    return made.body.id as string;
  }

  /** Sends events; the ids they were given. */
  async send(session: string, ...events: object[]): Promise<string[]> {
    const { body } = await this.api.post(`/v1/sessions/${session}/events`, { events }).expect(200);
    return (body.data as { id: string }[]).map(({ id }) => id);
  }

  /** Waits until SQL over `sessions s` of this session is true. */
  async until(what: string, session: string, condition: string): Promise<void> {
    const sql = `SELECT (${condition}) AS so FROM sessions s WHERE s.id = $1`;
    await eventually(what, async () => (await this.one<{ so: boolean }>(sql, session)).so, BED_PATIENCE_MS);
  }

  /** The first row of a query about one session. */
  async one<T>(sql: string, session: string): Promise<T> {
    return (await this.api.pool.query(sql, [session])).rows[0] as T;
  }

  /** Stop reason of each turn, in order. */
  async turnEnds(session: string): Promise<string[]> {
    const { rows } = await this.api.pool.query<{ why: string }>(
      `SELECT stop_reason->>'type' AS why FROM turns WHERE session_id = $1 ORDER BY turn`,
      [session],
    );
    return rows.map(({ why }) => why);
  }
}
