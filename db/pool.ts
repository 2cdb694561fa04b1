import pg from 'pg';
import { LonghaulError } from '../contracts/error-codes.ts';

/** A pool or a client inside a transaction: query modules take either. */
export type Queryable = Pick<pg.Pool, 'query'>;
export type Pool = pg.Pool;

/** bigint columns (seq, tokens, micros) stay below 2^53 here, so they are read as numbers. */
pg.types.setTypeParser(pg.types.builtins.INT8, (text) => Number(text));

interface PoolOptions {
  databaseUrl: string;
  applicationName: string;
  max?: number;
}

/** Makes a pool whose waits and statements are bounded; a dropped idle connection never ends the process. */
export function createPool(options: PoolOptions): Pool {
  const pool = new pg.Pool({
    connectionString: options.databaseUrl,
    application_name: options.applicationName,
    max: options.max ?? 10,
    connectionTimeoutMillis: 5_000,
    idleTimeoutMillis: 60_000,
    statement_timeout: 20_000,
    idle_in_transaction_session_timeout: 30_000,
  });
  // The next query reports the outage to its caller; an unhandled 'error' would end the process instead.
  pool.on('error', () => undefined);
  return pool;
}

/** Runs `work` in one transaction; rolls back on any throw. */
export async function withTransaction<T>(pool: Pool, work: (tx: Queryable) => Promise<T>): Promise<T> {
  const client = await pool.connect();
  let broken: Error | undefined;
  const onError = (error: Error): void => {
    broken = error;
  };
  client.on('error', onError);
  try {
    await client.query('BEGIN');
    const result = await work(client);
    await client.query('COMMIT');
    return result;
  } catch (error) {
    try {
      await client.query('ROLLBACK');
    } catch (rollbackError) {
      broken = rollbackError instanceof Error ? rollbackError : new Error(String(rollbackError));
    }
    throw error;
  } finally {
    client.removeListener('error', onError);
    client.release(broken);
  }
}

/** Who holds a connection while it waits for something else than Postgres, and who waits to. */
interface Long {
  free: number;
  waiting: (() => void)[];
}

const longOf = new WeakMap<Pool, Long>();

/**
 * Half of a pool is for work that holds a connection over calls elsewhere, first come, first served. Such work asks for more
 * connections while it holds one; were there none, all of it would wait for itself, and everything else for it.
 */
async function withLongTurn<T>(pool: Pool, work: () => Promise<T>): Promise<T> {
  const long = longOf.get(pool) ?? { free: Math.max(1, Math.floor(pool.options.max / 2)), waiting: [] };
  longOf.set(pool, long);
  if (long.free > 0) long.free -= 1;
  else await new Promise<void>((resolve) => long.waiting.push(resolve));
  try {
    return await work();
  } finally {
    const next = long.waiting.shift();
    // Whoever is next takes this place: nobody gets between.
    if (next === undefined) long.free += 1;
    else next();
  }
}

/** As `withTransaction`, for work that waits for more than Postgres while it holds a lock; its callers wait their turn. */
export function withLongTransaction<T>(pool: Pool, work: (tx: Queryable) => Promise<T>): Promise<T> {
  return withLongTurn(pool, () => withTransaction(pool, work));
}

interface Held {
  /** Each statement commits by itself. */
  db: Queryable;
  transaction<T>(work: (tx: Queryable) => Promise<T>): Promise<T>;
}

/**
 * Runs `work` while no other process has the lock; waits for it as long as a statement may last. The lock belongs to the
 * connection all of it runs on, so that it is free when the process dies.
 */
export async function withAdvisoryLock<T>(
  pool: Pool,
  lock: { space: number; name: string },
  work: (held: Held) => Promise<T>,
): Promise<T> {
  return withLongTurn(pool, () => locked(pool, lock, work));
}

async function locked<T>(
  pool: Pool,
  lock: { space: number; name: string },
  work: (held: Held) => Promise<T>,
): Promise<T> {
  const client = await pool.connect();
  // A connection in an unknown state is closed, which frees the lock too.
  let broken: Error | boolean = true;
  client.on('error', ignore);
  try {
    await client.query('SELECT pg_advisory_lock(hashtextextended($1, $2))', [lock.name, lock.space]);
    const result = await work({
      db: client,
      transaction: async (inside) => {
        await client.query('BEGIN');
        const made = await inside(client);
        await client.query('COMMIT');
        return made;
      },
    });
    await client.query('SELECT pg_advisory_unlock(hashtextextended($1, $2))', [lock.name, lock.space]);
    broken = false;
    return result;
  } finally {
    client.removeListener('error', ignore);
    client.release(broken);
  }
}

/** The statement that runs reports the outage; an unhandled 'error' would end the process instead. */
function ignore(): void {}

const OUTAGE_CODES = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'EPIPE',
  'ENOENT',
  'ETIMEDOUT',
  '57P01',
  '57P02',
  '57P03',
  '08000',
  '08001',
  '08003',
  '08006',
  '53300',
  // The disk is full: work waits until somebody has made room.
  '53100',
]);

/** True when the error means "Postgres is away", not "the statement is wrong": such work may be tried again. */
export function isOutage(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const code = (error as { code?: unknown }).code;
  if (typeof code === 'string' && OUTAGE_CODES.has(code)) return true;
  return /Connection terminated|timeout exceeded when trying to connect|Client has encountered a connection error/.test(
    error.message,
  );
}

/** True when Postgres ended the work so that others could go on: it may be tried again. */
export function isDeadlock(error: unknown): boolean {
  return error instanceof Error && (error as { code?: unknown }).code === '40P01';
}

/** True when a row that another one must refer to is not there. */
export function isMissingReference(error: unknown): boolean {
  return error instanceof Error && (error as { code?: unknown }).code === '23503';
}

/** True when there is a row already that must be the only one. */
export function isUniqueViolation(error: unknown): boolean {
  return error instanceof Error && (error as { code?: unknown }).code === '23505';
}

/** True for SQLSTATE class 22: the value itself is wrong (a NUL in text, a number out of range …). */
export function isDataError(error: unknown): boolean {
  const code = error instanceof Error ? (error as { code?: unknown }).code : undefined;
  return typeof code === 'string' && /^22[0-9A-Z]{3}$/.test(code);
}

/** First row or a `not_found` error that names what was looked for. */
export function requireRow<T>(row: T | undefined, what: string): T {
  if (row === undefined) throw new LonghaulError('not_found', `${what} does not exist`);
  return row;
}
