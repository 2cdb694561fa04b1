import type { Queryable } from '../pool.ts';
import { toCamel } from '../rows.ts';

export interface ScriptedCallRow {
  sessionId: string;
  script: string;
  step: number;
  asked: number;
  billed: number;
}

/** One step of one script of one session. */
export interface ScriptedPlace {
  sessionId: string;
  script: string;
  step: number;
}

/** Counts an asking and returns how many there were, this one included. */
export async function countScriptedAsked(db: Queryable, place: ScriptedPlace): Promise<number> {
  const result = await db.query<{ asked: number }>(
    `INSERT INTO scripted_calls AS c (session_id, script_digest, step, asked) VALUES ($1, $2, $3, 1)
     ON CONFLICT (session_id, script_digest, step) DO UPDATE SET asked = c.asked + 1 RETURNING asked`,
    [place.sessionId, place.script, place.step],
  );
  return result.rows[0]?.asked ?? 1;
}

/** Counts a whole answer. */
export async function countScriptedBilled(db: Queryable, place: ScriptedPlace): Promise<void> {
  await db.query(
    'UPDATE scripted_calls SET billed = billed + 1 WHERE session_id = $1 AND script_digest = $2 AND step = $3',
    [place.sessionId, place.script, place.step],
  );
}

/** Counts of a session's scripts, in order of script and step; none when the session is not the team's. */
export async function listScriptedCalls(
  db: Queryable,
  { teamId, sessionId }: { teamId: string; sessionId: string },
  limit: number,
): Promise<ScriptedCallRow[]> {
  const result = await db.query<Record<string, unknown>>(
    `SELECT session_id, script_digest AS script, step, asked, billed FROM scripted_calls
     WHERE session_id = $1 AND EXISTS (SELECT 1 FROM sessions s WHERE s.id = $1 AND s.team_id = $2)
     ORDER BY script_digest, step LIMIT $3`,
    [sessionId, teamId, limit],
  );
  return result.rows.map((row) => toCamel<ScriptedCallRow>(row));
}
