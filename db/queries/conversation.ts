import type { ContentBlock } from '../../contracts/definitions.ts';
import type { EffectState } from '../../contracts/states.ts';
import type { Queryable } from '../pool.ts';
import { toCamel } from '../rows.ts';
import type { AssistantBlock } from './turns.ts';

/** One step of a session, or (step -1) the messages a turn began with: how much a prompt of it holds. */
export interface OutlineEntry {
  turn: number;
  step: number;
  /** What stays: messages, what the model said, short results. */
  bytes: number;
  /** Images and documents of messages: they stay, too, and cost a model far less than their size. */
  mediaBytes: number;
  /** Results of tool calls longer than `shortBytes`. */
  longBytes: number;
  longResults: number;
}

/** A place in a conversation; results before it may be left out. */
export interface Place {
  turn: number;
  step: number;
}

/** Sizes of all that a prompt is made of, oldest first, without loading it; at most `limit` entries. */
export async function readOutline(
  db: Queryable,
  sessionId: string,
  { shortBytes, limit }: { shortBytes: number; limit: number },
): Promise<OutlineEntry[]> {
  const result = await db.query(
    `SELECT turn, step, sum(bytes)::bigint AS bytes, sum(media_bytes)::bigint AS media_bytes,
       sum(long_bytes)::bigint AS long_bytes, count(*) FILTER (WHERE long_bytes > 0)::int AS long_results
     FROM (
       SELECT m.turn, -1 AS step,
         octet_length(b::text) * (b->>'type' = 'text')::int AS bytes,
         octet_length(b::text) * (b->>'type' <> 'text')::int AS media_bytes, 0 AS long_bytes
       FROM (SELECT i.turn, coalesce(i.shown, e.payload->'content') AS content
             FROM inputs i JOIN events e ON e.id = i.event_id
             WHERE i.session_id = $1 AND i.kind = 'message' AND i.turn IS NOT NULL) AS m, jsonb_array_elements(m.content) AS b
       UNION ALL
       SELECT turn, step, octet_length(content::text), 0, 0 FROM steps WHERE session_id = $1
       UNION ALL
       SELECT turn, step, CASE WHEN size > $2 THEN 0 ELSE size END, 0, CASE WHEN size > $2 THEN size ELSE 0 END
       FROM (SELECT turn, step, coalesce(octet_length((result->'content')::text), 0) AS size
             FROM effects WHERE session_id = $1) AS sized
     ) AS parts
     GROUP BY turn, step ORDER BY turn, step LIMIT $3`,
    [sessionId, shortBytes, limit],
  );
  return result.rows.map((row) => toCamel<OutlineEntry>(row as object));
}

interface UserTurnContent {
  turn: number;
  content: ContentBlock[];
}

interface StepContent extends Place {
  content: AssistantBlock[];
}

/** A tool call as the model reads about it. */
export interface ResultRow extends Place {
  toolUseId: string;
  state: EffectState;
  isError: boolean | null;
  /** null: there is none. */
  content: ContentBlock[] | null;
  /** It is long and old, so its content was not loaded. */
  leftOut: boolean;
}

export interface Conversation {
  users: UserTurnContent[];
  steps: StepContent[];
  results: ResultRow[];
}

/** All a prompt is made of, oldest first. Results before `from` that are longer than `shortBytes` are not loaded. */
export async function readConversation(
  db: Queryable,
  sessionId: string,
  { from, shortBytes }: { from: Place; shortBytes: number },
): Promise<Conversation> {
  const [users, steps, results] = await Promise.all([
    db.query<UserTurnContent>(
      `SELECT i.turn, coalesce(i.shown, e.payload->'content') AS content FROM inputs i JOIN events e ON e.id = i.event_id
       WHERE i.session_id = $1 AND i.kind = 'message' AND i.turn IS NOT NULL ORDER BY i.turn, e.seq`,
      [sessionId],
    ),
    db.query<StepContent>('SELECT turn, step, content FROM steps WHERE session_id = $1 ORDER BY turn, step', [
      sessionId,
    ]),
    db.query(
      `SELECT turn, step, tool_use_id, state, is_error, left_out,
         CASE WHEN NOT left_out THEN result->'content' END AS content
       FROM (SELECT *, (turn, step) < ($2::int, $3::int) AND coalesce(octet_length((result->'content')::text), 0) > $4
               AS left_out FROM effects WHERE session_id = $1) AS e
       ORDER BY turn, step, position`,
      [sessionId, from.turn, from.step, shortBytes],
    ),
  ]);
  return {
    users: users.rows,
    steps: steps.rows,
    results: results.rows.map((row) => toCamel<ResultRow>(row as object)),
  };
}

/** Something the model is to be shown in part: it is too long for a prompt. */
export interface LongContent {
  /** Of the event that brought it, or of the tool call it answers. */
  id: string;
  content: ContentBlock[];
}

/** Text of a content that is worth a look: the cheap condition first. */
const isLong = (content: string): string =>
  `octet_length((${content})::text) > $2 AND $2 <
     (SELECT sum(octet_length(b->>'text')) FROM jsonb_array_elements(${content}) AS b WHERE b->>'type' = 'text')`;

/** Messages that turns have taken, with more than `bytes` of text, of which nobody has recorded yet what the model is shown. */
export async function listLongMessages(db: Queryable, sessionId: string, bytes: number): Promise<LongContent[]> {
  const result = await db.query<LongContent>(
    `SELECT i.event_id AS id, e.payload->'content' AS content FROM inputs i JOIN events e ON e.id = i.event_id
     WHERE i.session_id = $1 AND i.kind = 'message' AND i.turn IS NOT NULL AND i.shown IS NULL
       AND ${isLong("e.payload->'content'")} ORDER BY e.seq`,
    [sessionId, bytes],
  );
  return result.rows;
}

/** Results that clients gave for custom tools, with more than `bytes` of text. */
export async function listLongAnswers(db: Queryable, sessionId: string, bytes: number): Promise<LongContent[]> {
  const result = await db.query<LongContent>(
    `SELECT id, result->'content' AS content FROM effects
     WHERE session_id = $1 AND kind = 'custom' AND state IN ('succeeded', 'failed')
       AND ${isLong("result->'content'")} ORDER BY turn, step, position`,
    [sessionId, bytes],
  );
  return result.rows;
}

/** Records what the model is shown of a message; the log keeps the whole. */
export async function showMessage(db: Queryable, shown: LongContent): Promise<void> {
  await db.query('UPDATE inputs SET shown = $2 WHERE event_id = $1 AND shown IS NULL', [
    shown.id,
    JSON.stringify(shown.content),
  ]);
}

/** The same for the answer to a custom tool. */
export async function showAnswer(db: Queryable, shown: LongContent): Promise<void> {
  await db.query(
    `UPDATE effects SET result = jsonb_set(result, '{content}', $2::jsonb)
     WHERE id = $1 AND kind = 'custom' AND state IN ('succeeded', 'failed')`,
    [shown.id, JSON.stringify(shown.content)],
  );
}
