import Anthropic, { toFile } from '@anthropic-ai/sdk';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { writeSessionEnd } from '../../db/queries/session-end.ts';
import { withTransaction } from '../../db/pool.ts';
import { makeAgent, testApi, type TestApi } from './support.ts';
import type { Server } from 'node:http';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';

const TOKEN = 'ghp_0123456789abcdefghijklmnopqrstuvwxyz';

describe('resources of a session, through the official SDK', { timeout: 120_000 }, () => {
  let api: TestApi;
  let server: Server;
  let client: Anthropic;
  let agentId: string;
  let environmentId: string;
  beforeAll(async () => {
    api = await testApi();
    server = api.app.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    client = new Anthropic({ baseURL: `http://127.0.0.1:${port}`, apiKey: api.key, maxRetries: 0 });
    ({ agentId, environmentId } = await makeAgent(api));
  });
  afterAll(async () => {
    server.close();
    await api.close();
  });

  const refused = async (resources: object[], field: string): Promise<void> => {
    const body = { agent: agentId, environment_id: environmentId, resources };
    const answer = await api.post('/v1/sessions', body).expect(400);
    expect(answer.body.error.message).toContain(field);
    expect(JSON.stringify(answer.body)).not.toContain(TOKEN);
  };

  it('that are repositories are shown without their token, opened to the network path by path, and end with the session', async () => {
    const session = await client.beta.sessions.create({
      agent: agentId,
      environment_id: environmentId,
      resources: [
        { type: 'github_repository', url: 'https://github.com/acme/shop', authorization_token: TOKEN },
        {
          type: 'github_repository',
          url: 'https://github.com/acme/tools.git',
          checkout: { type: 'commit', sha: '0123456789abcdef0123456789abcdef01234567' },
          mount_path: '/workspace/lib/tools',
        },
      ],
    });
    expect(JSON.stringify(session)).not.toContain(TOKEN);
    const listed = [];
    for await (const resource of client.beta.sessions.resources.list(session.id)) listed.push(resource);
    expect(listed).toMatchObject([
      { type: 'github_repository', url: 'https://github.com/acme/shop', mount_path: '/workspace/shop', checkout: null },
      { mount_path: '/workspace/lib/tools', checkout: { type: 'commit' } },
    ]);
    const id = (listed[0] as { id: string }).id;
    expect(await client.beta.sessions.resources.retrieve(id, { session_id: session.id })).toMatchObject({ id });
    const rotate = { session_id: session.id, authorization_token: `${TOKEN}2` };
    expect(await client.beta.sessions.resources.update(id, rotate)).toMatchObject({ id });
    const other = (listed[1] as { id: string }).id;
    await expect(client.beta.sessions.resources.update(other, rotate)).rejects.toThrow(/authorization_token/);

    const { rows } = await api.pool.query<{ environment: { networking: unknown; repositories: unknown } }>(
      'SELECT environment FROM sessions WHERE id = $1',
      [session.id],
    );
    expect(rows[0]?.environment).toMatchObject({
      networking: {
        type: 'limited',
        allowed_hosts: [],
        rules: [
          { host: 'github.com', paths: ['/acme/shop/**', '/acme/shop.git/**'], action: 'allow' },
          { host: 'github.com', paths: ['/acme/tools/**', '/acme/tools.git/**'], action: 'allow' },
        ],
      },
      repositories: [{ url: 'https://github.com/acme/shop' }, { commit: '0123456789abcdef0123456789abcdef01234567' }],
    });
    const sealed = async (): Promise<number> => {
      const found = await api.pool.query<{ count: number }>(
        'SELECT count(*)::int AS count FROM credential_versions WHERE sealed IS NOT NULL',
      );
      return found.rows[0]?.count ?? -1;
    };
    expect(await sealed()).toBe(1);
    await withTransaction(api.pool, (tx) => writeSessionEnd(tx, session.id, 'over'));
    expect(await sealed()).toBe(0);
  });

  it('refuses what is not supported, and names the field', async () => {
    await refused([{ type: 'memory_store', memory_store_id: 'm' }], 'resources[0].type');
    const url = 'https://github.com/acme/shop';
    await refused([{ type: 'github_repository', url: 'http://github.com/acme/shop' }], 'resources[0].url');
    await refused([{ type: 'github_repository', url: ' https://github.com/acme/shop' }], 'resources[0].url');
    await refused(
      [{ type: 'github_repository', url, authorization_token: 'two words' }],
      'resources[0].authorization_token',
    );
    await refused([{ type: 'github_repository', url, mount_path: '/etc' }], 'resources[0].mount_path');
    await refused(
      [
        { type: 'github_repository', url },
        { type: 'github_repository', url },
      ],
      'resources[1].mount_path',
    );
  });

  it('says what to do instead of git over ssh, here and in environments', async () => {
    const next = 'Give the https URL of the repository and a token';
    for (const url of [
      'ssh://git@github.com/acme/shop',
      'git+ssh://github.com/a/b',
      'git@github.com:acme/shop.git',
      'github.com:a/b',
    ]) {
      const resources = [{ type: 'github_repository', url, authorization_token: TOKEN }];
      const session = { agent: agentId, environment_id: environmentId, resources };
      const config = { type: 'cloud', repositories: [{ url: 'https://github.com/acme/shop' }, { url }] };
      for (const [answer, field] of [
        [await api.post('/v1/sessions', session).expect(400), 'resources[0].url'],
        [await api.post('/v1/environments', { name: 'Box', config }).expect(400), 'config.repositories[1].url'],
        [await api.post(`/v1/environments/${environmentId}`, { config }).expect(400), 'config.repositories[1].url'],
      ] as const) {
        expect(answer.body.error).toMatchObject({ code: 'git_over_ssh', field, next: expect.stringContaining(next) });
        expect(answer.text).not.toContain(TOKEN);
      }
    }
    const { rows } = await api.pool.query(`SELECT 1 FROM vaults v WHERE v.metadata->>'longhaul' = 'session'
      AND NOT EXISTS (SELECT 1 FROM sessions s WHERE s.vault_ids ? v.id)`);
    expect(rows).toEqual([]);
  });

  const upload = async (by = client): Promise<string> =>
    (await by.beta.files.upload({ file: await toFile(Buffer.from('a,b\n'), 'data.csv') })).id;

  it('that are files are mounted where they say, also those that come later, and can be taken away', async () => {
    const [one, two, three] = [await upload(), await upload(), await upload()];
    const repository = { type: 'github_repository' as const, url: 'https://github.com/acme/shop' };
    const mount_path = '/workspace/shop/Prüfung (1)/data.csv';
    const session = await client.beta.sessions.create({
      agent: agentId,
      environment_id: environmentId,
      resources: [{ type: 'file', file_id: one, mount_path }, repository, { type: 'file', file_id: two }],
    });
    expect(session.resources).toMatchObject([
      { type: 'file', file_id: one, mount_path },
      { type: 'github_repository', mount_path: '/workspace/shop' },
      { type: 'file', file_id: two, mount_path: `/mnt/session/uploads/${two}` },
    ]);
    const { resources } = client.beta.sessions;
    const added = await resources.add(session.id, { type: 'file', file_id: three });
    expect(Object.keys(added).toSorted()).toEqual(['created_at', 'file_id', 'id', 'mount_path', 'type', 'updated_at']);
    expect(added).toMatchObject({ type: 'file', file_id: three, mount_path: `/mnt/session/uploads/${three}` });
    const path = { session_id: session.id };
    expect(await resources.retrieve(added.id, path)).toEqual(added);
    const again = resources.add(session.id, { type: 'file', file_id: one, mount_path });
    await expect(again).rejects.toThrow(/mount_path/);
    await expect(resources.update(added.id, { ...path, authorization_token: TOKEN })).rejects.toThrow(
      /authorization_token/,
    );
    expect(await resources.delete(added.id, path)).toEqual({ id: added.id, type: 'session_resource_deleted' });
    await expect(resources.retrieve(added.id, path)).rejects.toThrow(Anthropic.NotFoundError);
    const [, shop] = session.resources as { id: string }[];
    await expect(resources.delete(shop?.id ?? '', path)).rejects.toThrow(/repositories/);
    const left = await client.beta.sessions.retrieve(session.id);
    expect(left.resources).toEqual(session.resources);

    await api.post(`/v1/sessions/${session.id}/archive`).expect(200);
    await expect(resources.add(session.id, { type: 'file', file_id: three })).rejects.toThrow(/ended/);
    const [kept] = session.resources as { id: string }[];
    await expect(resources.delete(kept?.id ?? '', path)).rejects.toThrow(/ended/);
  });

  it('refuses files that are not there, and paths where none may be', async () => {
    const id = await upload();
    const at = (mount_path: string, file_id = id): object => ({ type: 'file', file_id, mount_path });
    for (const path of [
      '/etc/passwd',
      'workspace/a',
      '/workspace',
      '/workspace/',
      '/workspace/a/',
      '/workspace//a',
      '/workspace/./a',
      '/workspace/../etc/a',
      '/workspace/a\0b',
      '/workspace/a\nb',
      '/workspaces/a',
      '/mnt/session',
      '/mnt/session/uploads',
      '/mnt/session/outputs',
      '/mnt/session/outputs/a',
      '/mnt/session/../a',
      '/mnt/sessions/a',
      '',
      `/workspace/${'a'.repeat(600)}`,
      `/workspace/${'ä'.repeat(128)}`,
    ]) {
      await refused([at(path)], 'resources[0].mount_path');
    }
    await refused([{ type: 'file' }], 'resources[0].file_id');
    await refused([{ type: 'file', file_id: '../x' }], 'resources[0].file_id');
    await refused([{ type: 'file', file_id: 'file_nowhere' }], 'resources[0].file_id');
    await refused([{ type: 'file', file_id: id, more: 1 }], 'more');
    const stranger = new Anthropic({ baseURL: client.baseURL, apiKey: api.otherKey, maxRetries: 0 });
    await refused([{ type: 'file', file_id: await upload(stranger) }], 'resources[0].file_id');
    const deleted = await upload();
    await client.beta.files.delete(deleted);
    await refused([{ type: 'file', file_id: deleted }], 'resources[0].file_id');
    await refused([at('/workspace/a'), at('/workspace/a')], 'resources[1].mount_path');
    await refused([at('/workspace/a'), at('/workspace/a/b')], 'resources[1].mount_path');
    await refused([at('/workspace/a/b'), at('/workspace/a')], 'resources[1].mount_path');
    const repository = { type: 'github_repository', url: 'https://github.com/acme/shop' };
    await refused([at('/workspace/shop'), repository], 'resources[0].mount_path');
    const many = Array.from({ length: 101 }, (_, index) => at(`/workspace/${index}`));
    await refused(many, 'resources[100].file_id');
  });
});
