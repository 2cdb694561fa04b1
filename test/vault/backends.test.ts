import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { parseSecretRef } from '../../contracts/credentials.ts';
import { EnvBackend } from '../../vault/backends/env.ts';
import { FileBackend } from '../../vault/backends/file.ts';
import { HashicorpBackend, type HashicorpAuth } from '../../vault/backends/hashicorp.ts';
import { InfisicalBackend } from '../../vault/backends/infisical.ts';
import { PostgresBackend } from '../../vault/backends/postgres.ts';
import { SYSTEM_CLOCK } from '../../vault/clock.ts';
import { readBackendsConfig } from '../../vault/config.ts';
import { vaultConformance } from '../conformance/vault.suite.ts';
import { startVaultDouble, type VaultDouble } from '../doubles/hashicorp-vault.ts';
import { startInfisicalDouble } from '../doubles/infisical.ts';
import { makeCredential, makeVault, newRing, vaultDatabase } from './support.ts';

vaultConformance(
  'postgres',
  async () => {
    const { pool, close } = await vaultDatabase();
    const ring = newRing();
    const backend = new PostgresBackend(pool, ring);
    const written = new Map<string, string>();
    return {
      backend,
      write: async (teamId, name, value) => {
        const key = `${teamId}/${name}`;
        const known = written.get(key);
        if (known !== undefined) {
          await backend.put({ teamId, path: known, field: null }, value);
          return known;
        }
        const id = await makeCredential(pool, ring, {
          teamId,
          vaultId: await makeVault(pool, teamId),
          parts: { value },
          name,
        });
        written.set(key, id);
        return id;
      },
      close,
    };
  },
  ['outage'],
);

vaultConformance(
  'env',
  () => {
    const env: Record<string, string> = { DATABASE_URL: 'not for teams' };
    const allowed: string[] = [];
    for (const name of ['ONE', 'TWO', 'MINE', 'PUT', 'AWAY']) allowed.push(`${name}@t`);
    allowed.push('L1@listed', 'L2@listed');
    return Promise.resolve({
      backend: new EnvBackend(env, allowed),
      write: (_teamId, name, value) => {
        env[name] = value;
        return Promise.resolve(name);
      },
      close: () => Promise.resolve(),
    });
  },
  ['put', 'outage'],
);

vaultConformance(
  'file',
  () => {
    const root = mkdtempSync(path.join(os.tmpdir(), 'longhaul-vault-'));
    return Promise.resolve({
      backend: new FileBackend(path.join(root, '{team}')),
      write: (teamId, name, value) => {
        mkdirSync(path.join(root, teamId), { recursive: true });
        writeFileSync(path.join(root, teamId, name), `${value}\n`);
        return Promise.resolve(name);
      },
      close: () => Promise.resolve(rmSync(root, { recursive: true })),
    });
  },
  ['put', 'outage'],
);

function hashicorp(double: VaultDouble, auth: HashicorpAuth, namespace = double.namespace): HashicorpBackend {
  const config = { address: double.url, namespace, mount: 'secret', prefix: 'longhaul/{team}/', auth };
  return new HashicorpBackend(config, SYSTEM_CLOCK);
}

const LOGINS: [string, (double: VaultDouble, folder: string) => HashicorpAuth][] = [
  ['a token', (double) => ({ type: 'token', token: double.rootToken })],
  ['AppRole', ({ roleId, secretId }) => ({ type: 'approle', roleId, secretId, mount: 'approle' })],
  [
    'Kubernetes',
    ({ kubernetesJwt }, folder) => {
      const tokenFile = path.join(folder, 'token');
      writeFileSync(tokenFile, `${kubernetesJwt}\n`);
      return { type: 'kubernetes', role: 'longhaul', tokenFile, mount: 'kubernetes' };
    },
  ],
];
for (const [name, authOf] of LOGINS) {
  vaultConformance(`hashicorp (a double), with ${name}`, async () => {
    const double = await startVaultDouble();
    const folder = mkdtempSync(path.join(os.tmpdir(), 'longhaul-vault-'));
    const backend = hashicorp(double, authOf(double, folder));
    return {
      backend,
      write: (teamId, key, value) => {
        double.put(`longhaul/${teamId}/${key}`, { token: value });
        return Promise.resolve(key);
      },
      breakDown: () => double.close(),
      close: async () => {
        await backend.close();
        double.close();
        rmSync(folder, { recursive: true });
      },
    };
  });
}

vaultConformance(
  'infisical (a double)',
  async () => {
    const double = await startInfisicalDouble();
    const { url, clientId, clientSecret, projectId } = double;
    const config = { url, clientId, clientSecret, projectId, environment: 'prod', prefix: '/longhaul/{team}' };
    const backend = new InfisicalBackend(config, SYSTEM_CLOCK);
    return {
      backend,
      write: (teamId, key, value) => {
        double.put(`/longhaul/${teamId}`, key, value);
        return Promise.resolve(key);
      },
      breakDown: () => double.close(),
      close: async () => {
        await backend.close();
        double.close();
      },
    };
  },
  ['put'],
);

describe('HashiCorp', () => {
  it('logs in once for many, and again when the login is taken back', async () => {
    const double = await startVaultDouble();
    double.put('longhaul/t/a', { one: '1', two: '2' });
    const backend = hashicorp(double, {
      type: 'approle',
      roleId: double.roleId,
      secretId: double.secretId,
      mount: 'approle',
    });
    const get = (field: string) => backend.get({ teamId: 't', path: 'a', field });
    expect((await Promise.all([get('one'), get('two'), get('one')])).map(({ value }) => value)).toEqual([
      '1',
      '2',
      '1',
    ]);
    expect(double.logins).toBe(1);
    double.revokeLogins();
    expect((await get('two')).value).toBe('2');
    expect(double.logins).toBe(2);
    // Of several fields one has to be named.
    await expect(backend.get({ teamId: 't', path: 'a', field: null })).rejects.toMatchObject({ code: 'not_found' });
    const stranger = hashicorp(double, { type: 'token', token: 'hvs.wrong' });
    await expect(stranger.get({ teamId: 't', path: 'a', field: 'one' })).rejects.toMatchObject({
      code: 'credential_unavailable',
    });
    const elsewhere = hashicorp(double, { type: 'token', token: double.rootToken }, 'other');
    await expect(elsewhere.get({ teamId: 't', path: 'a', field: 'one' })).rejects.toMatchObject({ code: 'not_found' });
    double.close();
  }, 60_000);
});

describe('files', () => {
  it('have fields when they are JSON, and links do not lead out of the folder', async () => {
    const root = mkdtempSync(path.join(os.tmpdir(), 'longhaul-vault-'));
    mkdirSync(path.join(root, 't/data'), { recursive: true });
    writeFileSync(path.join(root, 'outside'), 'secret of the host');
    writeFileSync(path.join(root, 't/data/real'), '{"user":"u","password":"p"}');
    symlinkSync('data/real', path.join(root, 't/inside'));
    symlinkSync('../outside', path.join(root, 't/escape'));
    const backend = new FileBackend(path.join(root, '{team}'));
    expect((await backend.get({ teamId: 't', path: 'inside', field: 'password' })).value).toBe('p');
    for (const wrong of ['escape', '../outside', 'data', 'data/real/x']) {
      await expect(backend.get({ teamId: 't', path: wrong, field: null })).rejects.toMatchObject({ code: 'not_found' });
    }
    rmSync(root, { recursive: true });
  }, 60_000);
});

describe('references', () => {
  it.each(['vault://file/a/b', 'vault://hashicorp/ci/github#token', 'vault://env/TOKEN', 'vault://infisical/x.y'])(
    '%s is one',
    (text) => expect(parseSecretRef(text)).toBeDefined(),
  );
  it.each([
    'vault://file/../x',
    'vault://file/a/../b',
    'vault://file/a/..',
    'vault://file/./a',
    'vault://file//a',
    'vault://file/a%2e%2e/b',
    'vault://postgres/vcrd_1',
    'vault://other/a',
    'file:///etc/passwd',
    'vault://file/',
    'vault://file/a#',
    'vault://file/a?b',
  ])('%s is none', (text) => expect(parseSecretRef(text)).toBeUndefined());
});

describe('configuration', () => {
  it('refuses what is half set, by name, without telling secrets', () => {
    const url = { LONGHAUL_VAULT_HASHICORP_URL: 'https://vault.example.com' };
    expect(() => readBackendsConfig(url)).toThrow('LONGHAUL_VAULT_HASHICORP_TOKEN');
    expect(() => readBackendsConfig({ ...url, LONGHAUL_VAULT_HASHICORP_ROLE_ID: 'r' })).toThrow('SECRET_ID');
    expect(() =>
      readBackendsConfig({
        LONGHAUL_VAULT_INFISICAL_URL: 'https://x',
        LONGHAUL_VAULT_INFISICAL_CLIENT_SECRET: 'hidden',
      }),
    ).toThrow('LONGHAUL_VAULT_INFISICAL_CLIENT_ID');
    expect(() => readBackendsConfig({ LONGHAUL_VAULT_ENV: 'DATABASE_URL' })).toThrow('NAME@team');
    expect(readBackendsConfig({})).toMatchObject({ env: null, fileRoot: null, hashicorp: null, infisical: null });
    expect(readBackendsConfig({ ...url, LONGHAUL_VAULT_HASHICORP_TOKEN: 'x' }).hashicorp).toMatchObject({
      mount: 'secret',
      prefix: 'longhaul/{team}/',
      auth: { type: 'token' },
    });
  });
});
