import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { ENDPOINTS } from '../../api/routes/index.ts';
import { createClient } from '../../client/index.ts';
import { testApi, type TestApi } from './support.ts';

let api: TestApi;
let server: Server;
let apiUrl: string;
beforeAll(async () => {
  api = await testApi();
  server = createServer(api.app).listen(0, '127.0.0.1');
  await once(server, 'listening');
  apiUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterAll(async () => {
  server.close();
  await api.close();
});

/** `GET /v1/agents/ID` is a call of the route `GET /v1/agents/{agent_id}`. */
const fits = (route: string, call: string): boolean => route.replaceAll(/\{\w+\}/g, 'ID') === call;

it('has a call for every route that takes a key', async () => {
  const asked: string[] = [];
  const recorder = createServer((req, res) => {
    const path = (req.url ?? '').split('?')[0] ?? '';
    asked.push(`${req.method ?? ''} ${path}`);
    req.resume().on('end', () => {
      const isStream = path.endsWith('/events/stream');
      res.writeHead(200, { 'content-type': isStream ? 'text/event-stream' : 'application/json' });
      res.end(isStream ? 'event: session.deleted\nid: 1\ndata: {"type":"session.deleted","seq":1}\n\n' : '{}');
    });
  }).listen(0, '127.0.0.1');
  await once(recorder, 'listening');
  const client = createClient({
    apiUrl: `http://127.0.0.1:${(recorder.address() as AddressInfo).port}`,
    apiKey: 'key',
  });
  const trySkills = async (): Promise<void> => {
    const { skills } = client;
    const files = [{ path: 'a/SKILL.md', content: new Blob(['x']) }];
    await Promise.all([skills.create(files), skills.list(), skills.get('ID'), skills.delete('ID')]);
    await Promise.all([skills.versions.create('ID', files), skills.versions.list('ID')]);
    await Promise.all([skills.versions.get('ID', 'ID'), skills.versions.delete('ID', 'ID')]);
    await (await skills.versions.content('ID', 'ID')).text();
  };
  const tryAll = async (part: unknown, name: string): Promise<void> => {
    if (name === 'follow') {
      for await (const _event of client.sessions.follow('ID', { after: 0 })) break;
    } else if (name === 'upload') await client.files.upload(new Blob(['x']), 'x');
    else if (name === 'download') await (await client.files.download('ID')).text();
    else if (name === 'effective') await client.prices.effective({ model: 'ID' });
    else if (name === 'skills') await trySkills();
    else if (typeof part === 'function') await (part as (...ids: string[]) => Promise<unknown>)('ID', 'ID', 'ID');
    else for (const [below, each] of Object.entries(part as object)) await tryAll(each, below);
  };
  await tryAll(client, '');
  recorder.close();
  recorder.closeAllConnections();
  // Links and the hooks of harnesses have tokens of their own.
  const routes = ENDPOINTS.filter(({ path }) => /^\/v1\/(?!file_links|harness\/)/.test(path));
  const expected = routes.map((each) => `${each.method.toUpperCase()} ${each.path}`);
  expect(expected.filter((route) => !asked.some((each) => fits(route, each)))).toEqual([]);
  expect(asked.filter((each) => !expected.some((route) => fits(route, each)))).toEqual([]);
});

it('stores a secret, sends a file and gets it back', async () => {
  const client = createClient({ apiUrl, apiKey: api.key });
  const vault = await client.vaults.create({ display_name: 'Build' });
  const credential = await client.vaults.credentials.create(vault.id, {
    auth: {
      type: 'environment_variable',
      secret_name: 'GITHUB_TOKEN',
      secret_value: 'a value nobody sees again',
      networking: { type: 'limited', allowed_hosts: ['api.github.com'] },
    },
  });
  expect(JSON.stringify(await client.vaults.credentials.list(vault.id))).not.toContain('nobody sees');
  expect((await client.vaults.credentials.archive(vault.id, credential.id)).archived_at).not.toBeNull();
  const file = await client.files.upload(new Blob(['a,b\n']), 'data.csv', { expiresInSeconds: 86_400 });
  expect(file.filename).toBe('data.csv');
  expect(await (await client.files.download(file.id)).text()).toBe('a,b\n');
  expect((await client.files.list()).data.map(({ id }) => id)).toEqual([file.id]);
  const link = await client.files.link(file.id, { ttl_seconds: 600 });
  expect(await (await fetch(new URL(link.url ?? '', apiUrl))).text()).toBe('a,b\n');
  await client.files.delete(file.id);
  expect((await client.egressPolicy.get()).rules).toEqual([]);
  expect((await client.securityEvents()).data).toEqual([]);
});
