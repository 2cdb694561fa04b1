import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import type { Server } from 'node:http';
import { createServer } from 'node:http';
import { connect, type AddressInfo } from 'node:net';
import Anthropic, { NotFoundError, toFile } from '@anthropic-ai/sdk';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LIMITS } from '../../contracts/limits.ts';
import { deleteOldFiles } from '../../db/queries/files.ts';
import { eventually } from '../support/stack.ts';
import { makeSession, testApi, type TestApi } from './support.ts';

let api: TestApi;
let server: Server;
let url: string;
let client: Anthropic;
let stranger: Anthropic;

beforeAll(async () => {
  api = await testApi();
  server = createServer(api.app).listen(0, '127.0.0.1');
  await once(server, 'listening');
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  client = new Anthropic({ baseURL: url, apiKey: api.key, maxRetries: 0 });
  stranger = new Anthropic({ baseURL: url, apiKey: api.otherKey, maxRetries: 0 });
});
afterAll(async () => {
  server.closeAllConnections();
  server.close();
  await api.close();
});

const sha = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
const bearer = (): { authorization: string } => ({ authorization: `Bearer ${api.key}` });

async function upload(content: Uint8Array | string, name = 'a.txt', type = 'text/plain') {
  return client.beta.files.upload({ file: await toFile(Buffer.from(content), name, { type }) });
}

async function countRows(table: 'files' | 'file_pieces'): Promise<number> {
  const { rows } = await api.pool.query<{ n: number }>(`SELECT count(*)::int AS n FROM ${table}`);
  return rows[0]?.n ?? -1;
}

/** Sends a hand-made form. */
async function post(body: string | Buffer, headers: Record<string, string> = {}): Promise<Response> {
  return fetch(`${url}/v1/files`, {
    method: 'POST',
    headers: { ...bearer(), 'content-type': 'multipart/form-data; boundary=x', ...headers },
    body,
  });
}
const part = (name: string, value: string, filename?: string): string =>
  `--x\r\ncontent-disposition: form-data; name="${name}"${filename === undefined ? '' : `; filename="${filename}"`}\r\n\r\n${value}\r\n`;
const codeOf = async (answer: Response): Promise<{ status: number; code: string; field?: string }> => {
  const { error } = (await answer.json()) as { error: { code: string; field?: string } };
  return { status: answer.status, code: error.code, ...(error.field === undefined ? {} : { field: error.field }) };
};

describe('with the official SDK', () => {
  it('stores a file of many pieces and gives back what it was', async () => {
    const content = randomBytes(3 * LIMITS.filePieceBytes + 17);
    const made = await upload(content, 'some/where/data.bin', 'application/x-thing');
    expect(made).toMatchObject({
      type: 'file',
      filename: 'data.bin',
      mime_type: 'application/x-thing',
      size_bytes: content.length,
      downloadable: true,
      expires_at: null,
      scope: null,
      sha256: sha(content),
    });
    expect(await client.beta.files.retrieveMetadata(made.id)).toMatchObject({ id: made.id });
    const down = await client.beta.files.download(made.id);
    expect(sha(Buffer.from(await down.arrayBuffer()))).toBe(sha(content));
    expect(down.headers.get('content-disposition')).toContain('attachment');
    expect(down.headers.get('content-security-policy')).toContain('sandbox');
  });

  it('stores an empty file', async () => {
    const made = await upload('', 'empty');
    expect(made.size_bytes).toBe(0);
    expect((await (await client.beta.files.download(made.id)).arrayBuffer()).byteLength).toBe(0);
  });

  it('keeps a file as long as it was asked to', async () => {
    const made = await client.beta.files.upload({
      file: await toFile(Buffer.from('x'), 'x'),
      expires_in_seconds: 3_600,
    });
    const livesMs = Date.parse(made.expires_at ?? '') - Date.parse(made.created_at);
    expect(livesMs).toBe(3_600_000);
    await api.pool.query(`UPDATE files SET expires_at = now() - interval '1 second' WHERE id = $1`, [made.id]);
    await expect(client.beta.files.download(made.id)).rejects.toBeInstanceOf(NotFoundError);
    expect(await deleteOldFiles(api.pool, 100)).toBeGreaterThan(0);
    const { rows } = await api.pool.query('SELECT 1 FROM file_pieces WHERE file_id = $1', [made.id]);
    expect(rows).toEqual([]);
  });

  it('lists by pages, by ids and by session', async () => {
    const made = [await upload('1', 'one'), await upload('2', 'two'), await upload('3', 'three')];
    const seen: string[] = [];
    for await (const file of client.beta.files.list({ limit: 1 })) seen.push(file.id);
    expect(seen.slice(0, 3)).toEqual(made.map(({ id }) => id).toReversed());
    expect(new Set(seen).size).toBe(seen.length);
    const some = await client.beta.files.list({ ids: [made[0]!.id, made[2]!.id, 'file_000'] });
    expect(some.data.map(({ id }) => id).toSorted()).toEqual([made[0]!.id, made[2]!.id].toSorted());
    const session = await makeSession(api);
    expect((await client.beta.files.list({ scope_id: session })).data).toEqual([]);
  });

  it('deletes a file with its content, once', async () => {
    const made = await upload('gone soon', 'gone');
    expect(await client.beta.files.delete(made.id)).toMatchObject({ id: made.id, type: 'file_deleted' });
    await expect(client.beta.files.retrieveMetadata(made.id)).rejects.toBeInstanceOf(NotFoundError);
    await expect(client.beta.files.delete(made.id)).rejects.toBeInstanceOf(NotFoundError);
    const { rows } = await api.pool.query('SELECT 1 FROM file_pieces WHERE file_id = $1', [made.id]);
    expect(rows).toEqual([]);
  });

  it('shows a file to its team only', async () => {
    const made = await upload('ours', 'ours');
    const { files } = stranger.beta;
    await expect(files.retrieveMetadata(made.id)).rejects.toBeInstanceOf(NotFoundError);
    await expect(files.download(made.id)).rejects.toBeInstanceOf(NotFoundError);
    await expect(files.delete(made.id)).rejects.toBeInstanceOf(NotFoundError);
    expect((await stranger.beta.files.list({ ids: [made.id] })).data).toEqual([]);
  });
});

describe('a download', () => {
  it('gives one range across pieces, and refuses one outside', async () => {
    const content = randomBytes(2 * LIMITS.filePieceBytes);
    const { id } = await upload(content, 'r');
    const get = (range: string): Promise<Response> =>
      fetch(`${url}/v1/files/${id}/content`, { headers: { ...bearer(), range } });
    const from = LIMITS.filePieceBytes - 5;
    const middle = await get(`bytes=${from}-${from + 9}`);
    expect(middle.status).toBe(206);
    expect(middle.headers.get('content-range')).toBe(`bytes ${from}-${from + 9}/${content.length}`);
    expect(Buffer.from(await middle.arrayBuffer())).toEqual(content.subarray(from, from + 10));
    expect(Buffer.from(await (await get('bytes=-3')).arrayBuffer())).toEqual(content.subarray(-3));
    expect(await codeOf(await get(`bytes=${content.length}-`))).toMatchObject({
      status: 416,
      code: 'range_not_satisfiable',
    });
  });

  it('breaks off, rather than end short, when the file is deleted under it', async () => {
    const { id } = await upload(randomBytes(LIMITS.filePieceBytes * 24), 'long');
    const answer = await fetch(`${url}/v1/files/${id}/content`, { headers: bearer() });
    const reader = answer.body!.getReader();
    await reader.read();
    await client.beta.files.delete(id);
    const rest = (async () => {
      for (;;) if ((await reader.read()).done) return 'ended';
    })();
    await expect(rest).rejects.toThrow();
  });

  it('by a link needs no key, until it is revoked or expired', async () => {
    const { id } = await upload('through a link', 'l.txt');
    const made = await api.post(`/v1/files/${id}/links`, { ttl_seconds: 60 }).expect(200);
    const link = made.body.url as string;
    expect(await (await fetch(`${url}${link}`)).text()).toBe('through a link');
    const stored = await api.pool.query<{ t: string }>(`SELECT encode(token_hash, 'hex') AS t FROM file_links`);
    expect(JSON.stringify(stored.rows)).not.toContain(link.split('/').at(-1));
    expect((await fetch(`${url}${link.slice(0, -1)}`)).status).toBe(404);
    await api.pool.query(`UPDATE file_links SET expires_at = now() - interval '1 second' WHERE file_id = $1`, [id]);
    expect((await fetch(`${url}${link}`)).status).toBe(404);
    const again = (await api.post(`/v1/files/${id}/links`, {}).expect(200)).body.url as string;
    expect((await api.delete(`/v1/files/${id}/links`).expect(200)).body.count).toBe(2);
    expect((await fetch(`${url}${again}`)).status).toBe(404);
  });
});

describe('an upload', () => {
  it.each([
    ['no form', '{}', { 'content-type': 'application/json' }, 415, 'unsupported_media_type', undefined],
    ['no boundary', 'x', { 'content-type': 'multipart/form-data' }, 415, 'unsupported_media_type', undefined],
    ['no file', `${part('expires_in_seconds', '3600')}--x--`, {}, 400, 'invalid_request', 'file'],
    ['two files', `${part('file', 'a', 'a')}${part('file', 'b', 'b')}--x--`, {}, 400, 'invalid_request', 'file'],
    ['another field', `${part('file', 'a', 'a')}${part('purpose', 'b')}--x--`, {}, 400, 'invalid_request', 'purpose'],
    [
      'a time too short',
      `${part('file', 'a', 'a')}${part('expires_in_seconds', '10')}--x--`,
      {},
      400,
      'invalid_request',
      'expires_in_seconds',
    ],
    ['a form that ends early', part('file', 'a', 'a'), {}, 400, 'invalid_request', 'file'],
    ['nothing', '', {}, 400, 'invalid_request', 'file'],
  ] as const)('%s is refused and leaves nothing', async (_name, body, headers, status, code, field) => {
    const before = [await countRows('files'), await countRows('file_pieces')];
    const answer = await codeOf(await post(body, headers));
    expect(answer).toEqual({ status, code, ...(field === undefined ? {} : { field }) });
    expect([await countRows('files'), await countRows('file_pieces')]).toEqual(before);
  });

  it('gives a name that is none a harmless one', async () => {
    const answer = await post(`${part('file', 'a', '../..\\\u202e\u0007evil\u0000.txt')}--x--`);
    expect(((await answer.json()) as { filename: string }).filename).toBe('evil.txt');
    const unnamed = await post(`${part('file', 'a', '..')}--x--`);
    expect(((await unnamed.json()) as { filename: string }).filename).toBe('unnamed');
  });

  it('of a caller that leaves is taken back', async () => {
    const before = await countRows('files');
    const socket = connect((server.address() as AddressInfo).port, '127.0.0.1');
    const head = `POST /v1/files HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${api.key}\r\ncontent-type: multipart/form-data; boundary=x\r\ncontent-length: 9000000\r\n\r\n`;
    socket.write(`${head}--x\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n`);
    socket.write(randomBytes(2 * LIMITS.filePieceBytes));
    await eventually('the first piece is stored', async () => (await countRows('files')) === before + 1);
    socket.destroy();
    await eventually('it is taken back', async () => (await countRows('files')) === before);
  });

  it('under an Idempotency-Key happens once', async () => {
    const before = await countRows('files');
    const body = `${part('file', 'same', 's.txt')}--x--`;
    const headers = { 'idempotency-key': 'upload-1' };
    const first = (await (await post(body, headers)).json()) as { id: string };
    const second = await post(body, headers);
    expect(second.headers.get('idempotent-replayed')).toBe('true');
    expect(((await second.json()) as { id: string }).id).toBe(first.id);
    const other = await codeOf(await post(`${part('file', 'other', 's.txt')}--x--`, headers));
    expect(other).toMatchObject({ status: 409, code: 'idempotency_conflict' });
    expect(await countRows('files')).toBe(before + 1);
  });

  it('is refused when the team holds as much as it may', async () => {
    const { id } = await upload('x', 'full');
    await api.pool.query('UPDATE files SET size_bytes = $2 WHERE id = $1', [id, LIMITS.fileBytesPerTeam]);
    expect(await codeOf(await post(`${part('file', 'a', 'a')}--x--`))).toMatchObject({
      status: 409,
      code: 'file_quota',
    });
    await client.beta.files.delete(id);
    expect((await post(`${part('file', 'a', 'a')}--x--`)).status).toBe(200);
  });

  it('that was never finished is pruned', async () => {
    await api.pool.query(
      `INSERT INTO files (id, team_id, state, source, filename, mime_type, created_by, created_at)
       VALUES ('file_unfinished', 'team-a', 'writing', 'upload', 'u', 'text/plain', 'user:ada', now() - interval '1 day')`,
    );
    await deleteOldFiles(api.pool, 100);
    const { rows } = await api.pool.query(`SELECT 1 FROM files WHERE id = 'file_unfinished'`);
    expect(rows).toEqual([]);
  });
});
