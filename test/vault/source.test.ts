import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { OAuthRefresh } from '../../contracts/credentials.ts';
import { LIMITS } from '../../contracts/limits.ts';
import type { Pool } from '../../db/pool.ts';
import { withTransaction } from '../../db/pool.ts';
import { archiveCredentials, lockCredential, replaceVersion } from '../../db/queries/credentials.ts';
import { findSealedCredential } from '../../db/queries/credential-secrets.ts';
import { createLogger } from '../../telemetry/logger.ts';
import { EnvBackend } from '../../vault/backends/env.ts';
import type { VaultBackend } from '../../vault/backends/port.ts';
import { Outbound } from '../../vault/outbound.ts';
import { sealParts } from '../../vault/seal.ts';
import { MemorySecretSource } from '../../vault/source.ts';
import { validateCredential } from '../../vault/validate.ts';
import { startOAuthDouble, type OAuthDouble } from '../doubles/oauth-server.ts';
import { canary, makeCredential, makeVault, newRing, specOf, vaultDatabase } from './support.ts';

let pool: Pool;
let close: () => Promise<void>;
const ring = newRing();
const logger = createLogger('test', 'silent');
let nowMs = Date.now();
const clock = { nowMs: () => nowMs };
const env: Record<string, string> = {};
/** Counts what is asked of it. */
class CountingBackend extends EnvBackend {
  asked = 0;
  override get(ref: Parameters<VaultBackend['get']>[0]): ReturnType<VaultBackend['get']> {
    this.asked += 1;
    return super.get(ref);
  }
}
let backend: CountingBackend;
let oauth: OAuthDouble;
const sources: MemorySecretSource[] = [];

function newSource(options: { isPublicAddress?: () => boolean; privateHosts?: string[] } = {}): MemorySecretSource {
  const outbound = new Outbound({
    isPublicAddress: options.isPublicAddress ?? (() => false),
    privateHosts: options.privateHosts ?? [oauth.host],
  });
  const source = new MemorySecretSource({ pool, ring, outbound, logger, clock, backends: new Map([['env', backend]]) });
  sources.push(source);
  return source;
}

beforeAll(async () => {
  ({ pool, close } = await vaultDatabase());
}, 120_000);
afterAll(() => close());
beforeEach(async () => {
  nowMs = Date.now();
  backend = new CountingBackend(env, ['SECRET@t']);
  oauth = await startOAuthDouble();
});
afterEach(async () => {
  await Promise.all(sources.splice(0).map((source) => source.close()));
  oauth.close();
});

async function referenced(): Promise<string> {
  return makeCredential(pool, ring, {
    vaultId: await makeVault(pool),
    parts: {},
    spec: { parts: {} },
    secretRef: 'vault://env/SECRET',
  });
}

async function oauthCredential(
  made: { expiresInMs?: number; auth?: OAuthRefresh['tokenEndpointAuth']; endpoint?: string; server?: string } = {},
): Promise<{ id: string; accessToken: string }> {
  const accessToken = canary();
  const auth = made.auth ?? 'none';
  const id = await makeCredential(pool, ring, {
    vaultId: await makeVault(pool),
    kind: 'mcp_oauth',
    name: 'https://mcp.example.com/',
    parts: {
      access_token: accessToken,
      refresh_token: oauth.refreshToken,
      ...(auth === 'none' ? {} : { client_secret: oauth.clientSecret }),
    },
    spec: {
      env: null,
      mcpServerUrl: made.server ?? `${oauth.url}/mcp`,
      refresh: {
        clientId: 'app one',
        tokenEndpoint: made.endpoint ?? `${oauth.url}/token`,
        tokenEndpointAuth: auth,
        resource: 'https://mcp.example.com/',
        scope: 'read write',
      },
      parts: { access_token: 1, refresh_token: 1, ...(auth === 'none' ? {} : { client_secret: 1 }) },
    },
    expiresAt: new Date(nowMs + (made.expiresInMs ?? 10_000)),
  });
  return { id, accessToken };
}

async function stateOf(id: string): Promise<{ state: string; reason: string | null }> {
  const row = await findSealedCredential(pool, id);
  return { state: row?.state ?? '', reason: row?.stateReason ?? null };
}

async function actionsOf(id: string): Promise<string[]> {
  const { rows } = await pool.query<{ action: string }>('SELECT action FROM audit WHERE resource = $1 ORDER BY seq', [
    id,
  ]);
  return rows.map(({ action }) => action);
}

describe('values', () => {
  it('are fetched once for all who ask, and again when their minute is over', async () => {
    env['SECRET'] = canary();
    const source = newSource();
    const id = await referenced();
    const all = await Promise.all(Array.from({ length: 20 }, () => source.resolve(id)));
    expect(new Set(all.map(({ value }) => value))).toEqual(new Set([env['SECRET']]));
    expect(backend.asked).toBe(1);
    const before = env['SECRET'];
    env['SECRET'] = canary();
    nowMs += LIMITS.secretCacheTtlMs - 1;
    expect((await source.resolve(id)).value).toBe(before);
    nowMs += 2;
    expect((await source.resolve(id)).value).toBe(env['SECRET']);
    expect(backend.asked).toBe(2);
    source.invalidate(id);
    await source.resolve(id);
    expect(backend.asked).toBe(3);
  }, 60_000);

  it('that cannot be had are not asked for at once again', async () => {
    delete env['SECRET'];
    const source = newSource();
    const id = await referenced();
    for (let n = 0; n < 3; n += 1) await expect(source.resolve(id)).rejects.toMatchObject({ code: 'not_found' });
    expect(backend.asked).toBe(1);
    env['SECRET'] = canary();
    nowMs += LIMITS.secretFailureTtlMs + 1;
    expect((await source.resolve(id)).value).toBe(env['SECRET']);
  }, 60_000);

  it('are the newest when a newer one is known to be there, and gone when their credential is', async () => {
    const vaultId = await makeVault(pool);
    const id = await makeCredential(pool, ring, { vaultId, parts: { value: 'the first one' } });
    const source = newSource();
    expect(await source.resolve(id)).toMatchObject({ value: 'the first one', version: 1 });
    const value = sealParts(ring, { teamId: 't', vaultId, credentialId: id, version: 2 }, { value: 'the second one' });
    const draft = { secretRef: null, expiresAt: null, createdBy: 'ada' };
    await replaceVersion(pool, id, { ...draft, value, version: 2, spec: specOf({ parts: { value: 2 } }) });
    expect((await source.resolve(id)).version).toBe(1);
    expect(await source.resolve(id, { minVersion: 2 })).toMatchObject({ value: 'the second one', version: 2 });
    await archiveCredentials(pool, { vaultId, id });
    source.invalidate(id);
    await expect(source.resolve(id)).rejects.toMatchObject({ code: 'credential_revoked' });
  }, 60_000);

  it('leave the memory with the last session that held them', async () => {
    const vaultId = await makeVault(pool);
    const ids = await Promise.all(
      ['A', 'B'].map((name) =>
        makeCredential(pool, ring, { vaultId, parts: { value: canary() }, name, spec: { env: name } }),
      ),
    );
    const source = newSource();
    source.hold('sesn_1', ids);
    source.hold('sesn_2', [ids[1]!]);
    await Promise.all(ids.map((id) => source.resolve(id)));
    expect(source.size).toBe(2);
    source.forget('sesn_1');
    expect(source.size).toBe(1);
    source.forget('sesn_2');
    expect(source.size).toBe(0);
  }, 60_000);

  it('of back ends that are not set up are unavailable', async () => {
    const id = await makeCredential(pool, ring, {
      vaultId: await makeVault(pool),
      parts: {},
      spec: { parts: {} },
      secretRef: 'vault://hashicorp/x',
    });
    await expect(newSource().resolve(id)).rejects.toMatchObject({ code: 'credential_unavailable' });
  }, 60_000);
});

describe('access tokens', () => {
  it('are renewed before they end, in one process of several', async () => {
    const { id, accessToken } = await oauthCredential({ expiresInMs: 5 * 60_000 });
    const several = Array.from({ length: 4 }, () => newSource());
    expect((await several[0]!.resolve(id)).value).toBe(accessToken);
    nowMs += 4 * 60_000 + 1_000;
    const renewed = await Promise.all(several.map((source) => source.resolve(id)));
    expect(new Set(renewed.map(({ value }) => value)).size).toBe(1);
    expect(oauth.valid.has(renewed[0]!.value)).toBe(true);
    expect(oauth.calls).toHaveLength(1);
    expect(renewed[0]).toMatchObject({ version: 2, expiresAtMs: nowMs + 3_600_000 });
    // The next one is made with the refresh token that came with this one.
    nowMs += 3_600_000;
    await several[0]!.resolve(id);
    expect(oauth.calls).toHaveLength(2);
    expect(await actionsOf(id)).toEqual(['credential.refresh', 'credential.refresh']);
  }, 60_000);

  it.each(['none', 'client_secret_basic', 'client_secret_post'] as const)(
    'are asked for with client auth %s',
    async (auth) => {
      oauth.rotates = false;
      const { id } = await oauthCredential({ auth });
      await newSource().resolve(id);
      const call = oauth.calls[0]!;
      expect(Object.fromEntries(call.form)).toEqual({
        grant_type: 'refresh_token',
        refresh_token: oauth.refreshToken,
        scope: 'read write',
        resource: 'https://mcp.example.com/',
        ...(auth === 'client_secret_basic' ? {} : { client_id: 'app one' }),
        ...(auth === 'client_secret_post' ? { client_secret: oauth.clientSecret } : {}),
      });
      const basic = `Basic ${Buffer.from(`app+one:${oauth.clientSecret}`).toString('base64')}`;
      expect(call.authorization).toBe(auth === 'client_secret_basic' ? basic : '');
      // A server that does not rotate: the old refresh token does again.
      nowMs += 2 * 3_600_000;
      await newSource().resolve(id);
      expect(oauth.calls).toHaveLength(2);
    },
  );

  it('whose refresh token is refused say needs_reauth, and work until they end', async () => {
    oauth.fails = { status: 400, body: { error: 'invalid_grant', error_description: 'gone' } };
    const { id, accessToken } = await oauthCredential({ expiresInMs: 30_000 });
    const source = newSource();
    expect((await source.resolve(id)).value).toBe(accessToken);
    expect(await stateOf(id)).toEqual({
      state: 'needs_reauth',
      reason: 'refresh_refused: the token endpoint answered invalid_grant',
    });
    expect(await actionsOf(id)).toEqual(['credential.needs_reauth']);
    nowMs += 31_000;
    await expect(source.resolve(id)).rejects.toMatchObject({ code: 'credential_needs_reauth' });
    await expect(newSource().resolve(id)).rejects.toMatchObject({ code: 'credential_needs_reauth' });
    expect(oauth.calls).toHaveLength(1);
  }, 60_000);

  it('are asked for again when the server was only unwell', async () => {
    oauth.fails = { status: 503, body: {} };
    const { id } = await oauthCredential({ expiresInMs: -1_000 });
    const source = newSource();
    await expect(source.resolve(id)).rejects.toMatchObject({ code: 'credential_unavailable' });
    expect((await stateOf(id)).state).toBe('active');
    oauth.fails = null;
    nowMs += LIMITS.secretFailureTtlMs + 1;
    expect(oauth.valid.has((await source.resolve(id)).value)).toBe(true);
    expect(await actionsOf(id)).toEqual(['credential.refresh_failed', 'credential.refresh']);
  }, 60_000);

  it('that a person replaced during a renewal are those of the person; only what was not replaced is renewed', async () => {
    const { id } = await oauthCredential();
    const theirs = canary();
    oauth.beforeAnswer = () =>
      withTransaction(pool, async (tx) => {
        await lockCredential(tx, id);
        const row = (await findSealedCredential(tx, id))!;
        const place = { teamId: 't', vaultId: row.vaultId, credentialId: id, version: 2 };
        await replaceVersion(tx, id, {
          version: 2,
          value: sealParts(ring, place, { access_token: theirs }),
          secretRef: null,
          expiresAt: new Date(nowMs + 7_200_000),
          createdBy: 'ada',
          spec: { ...row.spec, parts: { ...row.spec.parts, access_token: 2 } },
        });
      });
    expect(await newSource().resolve(id)).toMatchObject({ value: theirs, version: 3, expiresAtMs: nowMs + 7_200_000 });
    oauth.beforeAnswer = () => Promise.resolve();
    // The rotated refresh token was kept: it renews.
    nowMs += 7_200_000;
    expect(oauth.valid.has((await newSource().resolve(id)).value)).toBe(true);
  }, 60_000);

  it('are asked for at no address a team could not reach by itself', async () => {
    for (const [endpoint, open] of [
      [`${oauth.url}/token`, false],
      [`https://localhost:${oauth.host.split(':')[1]}/token`, false],
      ['https://169.254.169.254/token', false],
      ['https://[::1]/token', false],
    ] as const) {
      const { id } = await oauthCredential({ expiresInMs: -1_000, endpoint });
      await expect(newSource({ privateHosts: open ? [oauth.host] : [] }).resolve(id)).rejects.toMatchObject({
        code: 'credential_unavailable',
      });
      const { rows } = await pool.query<{ details: { reason: string } }>(
        'SELECT details FROM audit WHERE resource = $1',
        [id],
      );
      expect(rows[0]?.details.reason).toMatch(/is not on the public internet|has to speak https/);
    }
    expect(oauth.calls).toEqual([]);
  }, 60_000);
});

const validationDeps = () => ({
  pool,
  ring,
  clock,
  outbound: new Outbound({ isPublicAddress: () => false, privateHosts: [oauth.host] }),
});

describe('validation', () => {
  it('tries the token, and renews it when it is refused', async () => {
    const { id, accessToken } = await oauthCredential({ expiresInMs: 3_600_000 });
    oauth.valid.add(accessToken);
    expect(await validateCredential(validationDeps(), id)).toMatchObject({
      status: 'valid',
      has_refresh_token: true,
      mcp_probe: null,
      refresh: null,
    });
    oauth.valid.clear();
    expect(await validateCredential(validationDeps(), id)).toMatchObject({
      status: 'valid',
      refresh: { status: 'succeeded' },
    });
    oauth.valid.clear();
    oauth.fails = { status: 400, body: { error: 'invalid_grant' } };
    const failed = await validateCredential(validationDeps(), id);
    expect(failed).toMatchObject({
      status: 'invalid',
      mcp_probe: { method: 'initialize', http_response: { status_code: 401, content_type: 'application/json' } },
      refresh: { status: 'failed', http_response: { status_code: 400 } },
    });
    expect(failed.mcp_probe?.http_response?.body).toContain('no such token: Bearer [redacted]');
    // What it says of the token in base64 is no longer the token.
    const { token64 } = JSON.parse(failed.mcp_probe?.http_response?.body ?? '') as { token64: string };
    expect(Buffer.from(token64, 'base64').toString()).toBe('Bearer [redacted]');
    oauth.close();
    expect(await validateCredential(validationDeps(), id)).toMatchObject({
      status: 'unknown',
      mcp_probe: { http_response: null },
    });
  }, 60_000);
});
