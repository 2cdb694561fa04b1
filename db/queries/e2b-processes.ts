import type { Queryable } from '../pool.ts';
import { toCamel } from '../rows.ts';

export interface E2bProcessRow {
  pid: number;
  tag: string | null;
  cmd: string;
  args: string[];
  cwd: string | null;
  kind: 'command' | 'pty';
  stdin: boolean;
  startedAt: Date;
  endedAt: Date | null;
}

const COLUMNS = 'pid, tag, cmd, args, cwd, kind, stdin, started_at, ended_at';

/** Gives the command its pid before it is started; undefined when `limit` of the sandbox's run or nobody looked after them. */
export async function insertE2bProcess(
  db: Queryable,
  sandboxId: string,
  draft: Omit<E2bProcessRow, 'pid' | 'startedAt' | 'endedAt'>,
  limit: number,
): Promise<number | undefined> {
  const { tag, cmd, args, cwd, kind, stdin } = draft;
  const result = await db.query<{ pid: number }>(
    `WITH next AS (
       UPDATE e2b_sandboxes SET last_pid = last_pid + 1
       WHERE id = $1 AND (SELECT count(*) FROM e2b_processes WHERE sandbox_id = $1 AND ended_at IS NULL) < $8
       RETURNING last_pid)
     INSERT INTO e2b_processes (sandbox_id, pid, tag, cmd, args, cwd, kind, stdin)
     SELECT $1, last_pid, $2, $3, $4, $5, $6, $7 FROM next RETURNING pid`,
    [sandboxId, tag, cmd, JSON.stringify(args), cwd, kind, stdin, limit],
  );
  return result.rows[0]?.pid;
}

/** By pid, or the newest of a tag. */
export async function findE2bProcess(
  db: Queryable,
  sandboxId: string,
  by: { pid: number } | { tag: string },
): Promise<E2bProcessRow | undefined> {
  const isPid = 'pid' in by;
  const result = await db.query(
    `SELECT ${COLUMNS} FROM e2b_processes WHERE sandbox_id = $1 AND ${isPid ? 'pid' : 'tag'} = $2
     ORDER BY pid DESC LIMIT 1`,
    [sandboxId, isPid ? by.pid : by.tag],
  );
  return result.rows[0] === undefined ? undefined : toCamel<E2bProcessRow>(result.rows[0] as object);
}

/** Those nobody has seen end, oldest first. */
export async function listOpenE2bProcesses(db: Queryable, sandboxId: string, limit: number): Promise<E2bProcessRow[]> {
  const result = await db.query(
    `SELECT ${COLUMNS} FROM e2b_processes WHERE sandbox_id = $1 AND ended_at IS NULL ORDER BY pid LIMIT $2`,
    [sandboxId, limit],
  );
  return result.rows.map((row) => toCamel<E2bProcessRow>(row as object));
}

export async function endE2bProcess(db: Queryable, sandboxId: string, pid: number): Promise<void> {
  await db.query('UPDATE e2b_processes SET ended_at = now() WHERE sandbox_id = $1 AND pid = $2 AND ended_at IS NULL', [
    sandboxId,
    pid,
  ]);
}

/** Commands that ended long ago. Their pids are not given again. */
export async function deleteEndedE2bProcesses(db: Queryable, keptMs: number): Promise<void> {
  await db.query('DELETE FROM e2b_processes WHERE ended_at < now() - make_interval(secs => $1 / 1000.0)', [keptMs]);
}
