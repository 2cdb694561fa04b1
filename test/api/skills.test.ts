import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import Anthropic, { APIError, toFile } from '@anthropic-ai/sdk';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LIMITS } from '../../contracts/limits.ts';
import { testApi, type TestApi } from './support.ts';

let api: TestApi;
let server: Server;
let client: Anthropic;
let other: Anthropic;
const folder = mkdtempSync(path.join(os.tmpdir(), 'longhaul-skills-'));

beforeAll(async () => {
  api = await testApi();
  server = createServer(api.app).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const baseURL = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  client = new Anthropic({ baseURL, apiKey: api.key, maxRetries: 0 });
  other = new Anthropic({ baseURL, apiKey: api.otherKey, maxRetries: 0 });
}, 120_000);

afterAll(async () => {
  rmSync(folder, { recursive: true, force: true });
  server.closeAllConnections();
  server.close();
  await api.close();
});

const main = (name = 'pdf-forms', description = 'Fills in forms.'): string =>
  `---\nname: ${name}\ndescription: ${description}\nlicense: MIT\n---\n\n# How\n\nRead forms/fields.md.\n`;

async function files(named: Record<string, string | Buffer>): Promise<File[]> {
  return Promise.all(Object.entries(named).map(([name, content]) => toFile(Buffer.from(content as string), name)));
}

const refusal = async (work: Promise<unknown>): Promise<string> => {
  const error = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof APIError)) throw new Error(`not refused: ${String(error)}`);
  expect(error.status).toBe(400);
  return error.message;
};

describe('skills with the official SDK', { timeout: 120_000 }, () => {
  it('keeps versions that never change, and gives back what was uploaded', async () => {
    const image = Buffer.from([0, 255, 1, 254]);
    const made = await client.beta.skills.create({
      display_name: 'Forms',
      files: await files({
        'pdf/SKILL.md': main(),
        'pdf/forms/fields.md': 'Fields: ä.',
        'pdf/logo.png': image,
      }),
    });
    expect(made).toMatchObject({ type: 'skill', display_name: 'Forms', source: { type: 'custom' } });
    const first = await client.beta.skills.versions.retrieve(made.latest_version_id, { skill_id: made.id });
    expect(first).toMatchObject({ name: 'pdf-forms', description: 'Fills in forms.', skill_id: made.id });

    const second = await client.beta.skills.versions.create(made.id, {
      files: await files({ 'pdf/SKILL.md': main('pdf-forms', 'Fills in all forms.') }),
    });
    expect((await client.beta.skills.retrieve(made.id)).latest_version_id).toBe(second.id);
    const versions = await client.beta.skills.versions.list(made.id);
    expect(versions.data.map(({ id }) => id)).toEqual([second.id, first.id]);

    const down = await client.beta.skills.versions.download(first.id, { skill_id: made.id });
    const archive = path.join(folder, 'skill.zip');
    writeFileSync(archive, Buffer.from(await down.arrayBuffer()));
    // Python's reader checks sums and the directory.
    execFileSync('python3', ['-m', 'zipfile', '-e', archive, folder]);
    expect(readFileSync(path.join(folder, 'pdf-forms', 'SKILL.md'), 'utf8')).toBe(main());
    expect(readFileSync(path.join(folder, 'pdf-forms', 'forms', 'fields.md'), 'utf8')).toBe('Fields: ä.');
    expect(readFileSync(path.join(folder, 'pdf-forms', 'logo.png'))).toEqual(image);

    await client.beta.skills.versions.delete(second.id, { skill_id: made.id });
    expect((await client.beta.skills.retrieve(made.id)).latest_version_id).toBe(first.id);
    await expect(client.beta.skills.versions.delete(first.id, { skill_id: made.id })).rejects.toMatchObject({
      status: 409,
    });
    await expect(other.beta.skills.retrieve(made.id)).rejects.toMatchObject({ status: 404 });
    expect((await other.beta.skills.list()).data).toEqual([]);
    expect((await client.beta.skills.list()).data.map(({ id }) => id)).toContain(made.id);
    expect(await client.beta.skills.delete(made.id)).toEqual({ id: made.id, type: 'skill_deleted' });
    await expect(client.beta.skills.retrieve(made.id)).rejects.toMatchObject({ status: 404 });
  });

  it('refuses paths that lead elsewhere or mean two things', async () => {
    const bad = [
      '../SKILL.md',
      'a/../../etc/passwd',
      '/etc/passwd',
      'a//b',
      'a/./b',
      'a/b\\c',
      'a/C:',
      'a/ b',
      'a/\u202Eb',
      'b/other-folder.md',
      `a/${'x'.repeat(300)}`,
      `a/${'字'.repeat(100)}`,
      `a/${'d/'.repeat(12)}x`,
      'a/skill.MD',
      'a/SKILL.md/inside',
    ];
    for (const name of bad) {
      const given = await files({ 'a/SKILL.md': main(), [name]: 'x' });
      expect(await refusal(client.beta.skills.create({ files: given })), name).toContain('files');
    }
    expect(await refusal(client.beta.skills.create({ files: await files({ 'SKILL.md': main() }) }))).toContain(
      'folder',
    );
    const { rows } = await api.pool.query('SELECT id FROM skills WHERE deleted_at IS NULL');
    expect(rows).toEqual([]);
  });

  it('refuses what is no skill, or too much', async () => {
    const texts: [string, RegExp][] = [
      ['no front matter', /front matter/],
      ['---\nname: [\n---\n', /YAML/],
      ['---\nname: Not Kebab\ndescription: d\n---\n', /name in SKILL.md/],
      ['---\nname: a\n---\n', /description in SKILL.md/],
      [`---\nname: a\ndescription: ${'x'.repeat(2_000)}\n---\n`, /description in SKILL.md/],
    ];
    for (const [text, reason] of texts) {
      expect(await refusal(client.beta.skills.create({ files: await files({ 'a/SKILL.md': text }) }))).toMatch(reason);
    }
    expect(await refusal(client.beta.skills.create({ files: await files({ 'a/README.md': 'x' }) }))).toMatch(
      /SKILL.md/,
    );
    const many = Object.fromEntries(Array.from({ length: LIMITS.skillFiles + 1 }, (_v, n) => [`a/${n}.md`, 'x']));
    expect(await refusal(client.beta.skills.create({ files: await files(many) }))).toMatch(/files/);
    const large = await files({ 'a/SKILL.md': main('a'), 'a/big': Buffer.alloc(LIMITS.skillBytes) });
    await expect(client.beta.skills.create({ files: large })).rejects.toMatchObject({ status: 413 });
    const named = await client.beta.skills.create({ files: await files({ 'a/SKILL.md': main('one') }) });
    const renamed = await files({ 'a/SKILL.md': main('two') });
    expect(await refusal(client.beta.skills.versions.create(named.id, { files: renamed }))).toMatch(/must stay one/);
  });

  it('is made once under an Idempotency-Key', async () => {
    const headers = { 'Idempotency-Key': 'the-same-skill' };
    const send = async (text: string): Promise<{ id: string }> =>
      client.beta.skills.create({ files: await files({ 'k/SKILL.md': text }) }, { headers });
    const first = await send(main('keyed'));
    expect((await send(main('keyed'))).id).toBe(first.id);
    await expect(send(main('keyed', 'Another.'))).rejects.toMatchObject({ status: 409 });
  });

  it('belongs to agents with the version it had', async () => {
    const made = await client.beta.skills.create({ files: await files({ 's/SKILL.md': main('kept') }) });
    const body = { name: 'S', model: 'scripted', skills: [{ type: 'custom', skill_id: made.id }] };
    const agent = await api.post('/v1/agents', body).expect(200);
    const kept = [{ type: 'custom', skill_id: made.id, version: made.latest_version_id }];
    expect(agent.body.skills).toEqual(kept);
    await client.beta.skills.versions.create(made.id, { files: await files({ 's/SKILL.md': main('kept', 'New.') }) });
    const edited = await api.post(`/v1/agents/${agent.body.id as string}`, { name: 'T' }).expect(200);
    expect(edited.body.skills).toEqual(kept);
    for (const skills of [
      [{ type: 'custom', skill_id: 'skill_none' }],
      [{ type: 'custom', skill_id: made.id, version: 'skver_none' }],
      [...kept, ...kept],
    ]) {
      const refused = await api.post('/v1/agents', { ...body, skills }).expect(400);
      expect(refused.body.error.field).toBe(`skills[${skills.length - 1}]`);
    }
    await api.post('/v1/agents', { ...body, skills: [{ type: 'anthropic', skill_id: 'xlsx' }] }).expect(400);
    const without = await api.post(`/v1/agents/${agent.body.id as string}`, { skills: null }).expect(200);
    expect(without.body.skills).toEqual([]);
  });
});
