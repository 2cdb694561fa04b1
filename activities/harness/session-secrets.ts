import { randomBytes } from 'node:crypto';
import { chmod, mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { z } from 'zod';
import { LIMITS } from '../../contracts/limits.ts';
import type { SessionForTurn } from '../../db/queries/session-status.ts';
import { findSessionToken, mintSessionToken } from '../../db/queries/session-tokens.ts';
import { findVirtualKey, mintVirtualKey } from '../../db/queries/virtual-keys.ts';
import type { ActivityDeps } from '../deps.ts';

/** What a harness is given to reach us: each good for one session only. */
export interface SessionSecrets {
  /** Of the gateway; its calls belong to the turn that runs. */
  key: string;
  mcpToken: string;
  hookToken: string;
}

const stored = z.object({ key: z.string(), mcpToken: z.string(), hookToken: z.string() });

/**
 * The same over turns and workers, as long as it is good: a shared server has it in its configuration. Kept in a file that
 * only this user reads, beside that configuration, which holds it as well.
 */
export async function sessionSecrets(
  deps: ActivityDeps,
  session: SessionForTurn,
  folder: string,
): Promise<SessionSecrets> {
  const file = path.join(folder, 'secrets.json');
  const kept = await readSecrets(file);
  if (kept !== undefined && (await areGood(deps, session.id, kept))) return kept;
  const ttlMs = LIMITS.harnessKeyTtlMs;
  const { key } = await mintVirtualKey(deps.pool, {
    teamId: session.teamId,
    userId: session.createdBy,
    sessionId: session.id,
    agentId: session.agentId,
    agentVersion: session.agentVersion,
    followsTurn: true,
    ttlMs,
  });
  const [{ token: mcpToken }, { token: hookToken }] = [
    await mintSessionToken(deps.pool, session.id, 'mcp', ttlMs),
    await mintSessionToken(deps.pool, session.id, 'hook', ttlMs),
  ];
  const secrets = { key, mcpToken, hookToken };
  await mkdir(folder, { recursive: true, mode: 0o700 });
  await chmod(folder, 0o700);
  const part = `${file}.${randomBytes(6).toString('hex')}`;
  await writeFile(part, JSON.stringify(secrets), { mode: 0o600 });
  await rename(part, file);
  return secrets;
}

async function readSecrets(file: string): Promise<SessionSecrets | undefined> {
  try {
    return stored.parse(JSON.parse(await readFile(file, 'utf8')));
  } catch {
    return undefined;
  }
}

/** Long enough for a turn: what runs out in its middle would end it. */
async function areGood(deps: ActivityDeps, sessionId: string, secrets: SessionSecrets): Promise<boolean> {
  const enoughMs = Date.now() + LIMITS.harnessKeyTtlMs / 2;
  const [key, mcp, hook] = await Promise.all([
    findVirtualKey(deps.pool, secrets.key),
    findSessionToken(deps.pool, secrets.mcpToken, 'mcp'),
    findSessionToken(deps.pool, secrets.hookToken, 'hook'),
  ]);
  return (
    key?.attribution.sessionId === sessionId &&
    [mcp, hook].every((token) => token?.sessionId === sessionId) &&
    [key, mcp, hook].every((row) => row !== undefined && row.expiresAt.getTime() > enoughMs)
  );
}
