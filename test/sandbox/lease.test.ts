import { mkdtempSync, renameSync, rmSync, utimesSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ActivityDeps } from '../../activities/deps.ts';
import { reapSandboxes } from '../../activities/maintenance/reaper.ts';
import { actWhenIdle } from '../../activities/sandbox/idle.ts';
import { createSandboxProviders } from '../../activities/sandbox/index.ts';
import type { Lease } from '../../activities/sandbox/lease.ts';
import { forgetLease, leaseSandbox } from '../../activities/sandbox/lease.ts';
import { withLock } from '../../activities/sandbox/local/lock.ts';
import { pathsOf } from '../../activities/sandbox/local/record.ts';
import type { SandboxProvider } from '../../activities/sandbox/port.ts';
import { prepareSandbox } from '../../activities/sandbox/prepare.ts';
import { whileRenewed } from '../../activities/sandbox/renew.ts';
import type { Pool } from '../../db/pool.ts';
import { withTransaction } from '../../db/pool.ts';
import { currentSandbox, getSandbox, lockSandboxOf, type SandboxRow } from '../../db/queries/sandboxes.ts';
import { loadSessionForTurn } from '../../db/queries/session-status.ts';
import { createLogger } from '../../telemetry/logger.ts';
import { LONG_MS, smallSpec, soon, until } from '../support/sandbox-commands.ts';
import { canary, makeCredential, makeSession, makeVault, newRing, vaultDatabase } from '../vault/support.ts';

describe('the sandboxes of sessions', { timeout: LONG_MS }, () => {
  let pool: Pool;
  let close: () => Promise<void>;
  let home: string;
  let provider: SandboxProvider;
  let deps: ActivityDeps;
  beforeAll(async () => {
    ({ pool, close } = await vaultDatabase());
    home = mkdtempSync(path.join(os.tmpdir(), 'longhaul-lease-'));
    const logger = createLogger('test', 'silent');
    const providers = createSandboxProviders({ rootDir: path.join(home, 'sandboxes'), rootfsDir: undefined, logger });
    const sandboxProvider = (name: string): SandboxProvider => providers[name] as SandboxProvider;
    provider = sandboxProvider('local');
    const trustBundleFile = path.join(home, 'trust.pem');
    deps = {
      pool,
      logger,
      sandboxProvider,
      sandboxProviders: () => [provider],
      sandboxOwner: home,
      egress: null,
      trustBundleFile,
    } as unknown as ActivityDeps;
  }, LONG_MS);
  afterAll(async () => {
    for await (const { ref } of provider.list(home, soon())) await provider.destroy(ref, soon());
    await close();
    rmSync(home, { recursive: true, force: true });
  }, LONG_MS);

  const open = async (environment: object = {}, vaultIds: string[] = []): Promise<string> => {
    const id = await makeSession(pool, vaultIds);
    await pool.query('UPDATE sessions SET environment = $2 WHERE id = $1', [
      id,
      JSON.stringify({ type: 'cloud', provider: 'local', ...environment }),
    ]);
    return id;
  };
  const lease = async (id: string): Promise<Lease> => {
    const leased = await leaseSandbox(deps, await loadSessionForTurn(pool, id), soon());
    if (leased.kind !== 'ready') throw new Error(leased.kind);
    return leased.lease;
  };
  const current = async (id: string): Promise<SandboxRow> => {
    const row = await currentSandbox(pool, id);
    if (row === undefined) throw new Error('there is none');
    return row;
  };
  const someoneWaits = (): Promise<void> =>
    until('somebody waits for the lock', async () => {
      const { rows } = await pool.query(
        `SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`,
      );
      return rows.length > 0;
    });

  it('more sessions than there are connections make, pause and wake theirs at once', async () => {
    const ids = await Promise.all(Array.from({ length: (pool.options.max ?? 0) * 2 }, () => open()));
    const made = await Promise.all(ids.map(lease));
    await pool.query(`UPDATE sandboxes SET idle_since = now() - interval '1 hour'`);
    const rows = await Promise.all(ids.map(current));
    const paused = await Promise.all(rows.map((row) => actWhenIdle(deps, row, 'pause', soon())));
    expect(new Set(paused)).toEqual(new Set([true]));
    expect(new Set((await Promise.all(ids.map(current))).map(({ state }) => state))).toEqual(new Set(['paused']));
    const woken = await Promise.all(ids.map(lease));
    expect(woken.map(({ id }) => id)).toEqual(made.map(({ id }) => id));
    for (const { ref } of woken) await provider.destroy(ref, soon());
    await pool.query(`UPDATE sandboxes SET state = 'destroyed'`);
  });

  it('whoever waits for the end of a sandbox does not keep the session from its log', async () => {
    const id = await open();
    let leased: Promise<Lease> | undefined;
    await withTransaction(pool, async (holder) => {
      await lockSandboxOf(holder, id);
      leased = lease(id);
      leased.catch(() => undefined);
      await someoneWaits();
      await withTransaction(pool, (tx) => tx.query('SELECT 1 FROM sessions WHERE id = $1 FOR UPDATE NOWAIT', [id]));
    });
    expect((await leased)?.ref.provider).toBe('local');
  });

  it('none is made for a session that has ended', async () => {
    const id = await open();
    await pool.query(`UPDATE sessions SET status = 'terminated' WHERE id = $1`, [id]);
    await expect(lease(id)).rejects.toMatchObject({ code: 'session_terminated' });
    expect(await currentSandbox(pool, id)).toBeUndefined();
  });

  it('a lease is renewed while something runs for longer than it lasts', async () => {
    const id = await open();
    const held = await lease(id);
    const expiry = async (): Promise<number> => (await provider.get(held.ref, soon()))?.expiresAtMs ?? 0;
    const before = await expiry();
    await pool.query(`UPDATE sandboxes SET lease_expires_at = now() - interval '1 s' WHERE session_id = $1`, [id]);
    const isRenewed = async (): Promise<boolean> => {
      const { rows } = await pool.query('SELECT 1 FROM sandboxes WHERE session_id = $1 AND lease_expires_at > now()', [
        id,
      ]);
      return rows.length === 1 && (await expiry()) > before;
    };
    await whileRenewed(deps, held, () => until('it is renewed', isRenewed), 20);
    // Nobody renews what sleeps.
    await pool.query(`UPDATE sandboxes SET state = 'paused' WHERE session_id = $1`, [id]);
    forgetLease(deps, id);
    expect((await lease(id)).id).toBe(held.id);
    expect((await current(id)).state).toBe('running');
  });

  it('one that nobody came to the end of making goes, with what the provider made of it', async () => {
    const id = await open();
    const row = { id: `sbx_${canary()}`, ref: await provider.create(smallSpec(home), 'half', soon()) };
    await pool.query(
      `INSERT INTO sandboxes (id, session_id, generation, provider, state, ref, lease_expires_at)
       VALUES ($1, $2, 1, 'local', 'creating', $3, now() - interval '1 s')`,
      [row.id, id, JSON.stringify(row.ref)],
    );
    await reapSandboxes(deps, soon());
    expect((await getSandbox(pool, row.id))?.state).toBe('destroyed');
    expect(await provider.get(row.ref, soon())).toBeNull();
  });

  it('one that is being put to sleep is not called awake by the sweep', async () => {
    const id = await open();
    const { id: sandboxId, ref } = await lease(id);
    await pool.query(`UPDATE sandboxes SET state = 'paused' WHERE id = $1`, [sandboxId]);
    let sweep: Promise<unknown> | undefined;
    await withTransaction(pool, async (holder) => {
      await lockSandboxOf(holder, id);
      sweep = reapSandboxes(deps, soon());
      await someoneWaits();
      expect((await current(id)).state).toBe('paused');
    });
    await sweep;
    expect((await provider.get(ref, soon()))?.state).toBe('paused');
    expect((await current(id)).state).toBe('paused');
  });

  it('one whose making takes long is not taken for the rest of one', async () => {
    const rootDir = path.join(home, 'sandboxes');
    const ref = await provider.create(smallSpec(home), 'slow', soon());
    const { dir, lock, record } = pathsOf(rootDir, ref.id);
    const aside = path.join(home, 'record.json');
    let sweep: Promise<unknown> | undefined;
    await withLock(lock, () => {
      renameSync(record, aside);
      utimesSync(dir, 1, 1);
      // Runs up to the lock at once.
      sweep = provider.list(home, soon())[Symbol.asyncIterator]().next();
      renameSync(aside, record);
      return Promise.resolve();
    });
    await sweep;
    expect((await provider.get(ref, soon()))?.state).toBe('running');
  });

  it('a set-up that left placeholders in files is not saved for other sessions', async () => {
    const vaultId = await makeVault(pool);
    await makeCredential(pool, newRing(), { vaultId, parts: { value: canary() }, spec: { env: 'TOKEN' } });
    const saved = async (script: string): Promise<number> => {
      const id = await open({ setup_script: script }, [vaultId]);
      expect(await prepareSandbox(deps, id, soon())).toEqual({ state: 'ready' });
      const { rows } = await pool.query('DELETE FROM environment_snapshots RETURNING hash');
      return rows.length;
    };
    expect(await saved('test -n "$TOKEN" && mkdir -p "a b" && echo "token=$TOKEN" > "a b/.npmrc"')).toBe(0);
    expect(await saved('test -n "$TOKEN" && mkdir -p "a b" && echo \'token=${TOKEN}\' > "a b/.npmrc"')).toBe(1);
  });
});
