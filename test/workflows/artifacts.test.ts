import { afterAll, beforeAll, expect, it } from 'vitest';
import { LIMITS } from '../../contracts/limits.ts';
import { testApi, type TestApi } from '../api/support.ts';
import { BED_PATIENCE_MS, BedDriver, toolset, TURNS_OVER } from '../support/bed-driver.ts';
import { bash, scriptMessage } from '../support/session-driver.ts';
import { workerBed, type WorkerBed } from '../support/worker.ts';

let api: TestApi;
let bed: WorkerBed;
let driver: BedDriver;
beforeAll(async () => {
  api = await testApi();
  bed = await workerBed(api);
  driver = new BedDriver(api);
  await bed.start();
});
afterAll(async () => {
  await bed?.close();
  await api?.close();
});

interface Stored {
  id: string;
  path: string;
  size_bytes: number;
  mime_type: string;
}

async function filesOf(session: string): Promise<Stored[]> {
  const { body } = await api.get(`/v1/files?scope_id=${session}`).expect(200);
  return body.data as Stored[];
}

async function eventsOf(session: string): Promise<{ type: string; payload: Record<string, unknown> }[]> {
  const sql = 'SELECT type, payload FROM events WHERE session_id = $1 ORDER BY seq';
  return (await api.pool.query(sql, [session])).rows as never;
}

const turn = (command: string): object => scriptMessage([{ tools: [bash(command)] }, { text: 'done' }]);
const ended = (session: string): Promise<void> => driver.until('the turn is over', session, TURNS_OVER);

it(
  'outputs of a turn are files when its end is told, once, and outlive the sandbox',
  async () => {
    const make = 'cd /mnt/session/outputs && mkdir -p deep/er && echo report > deep/er/report.md && echo 1,2 > t.csv';
    const session = await driver.open(turn(make), [toolset('always_allow')]);
    await ended(session);
    const first = await filesOf(session);
    expect(first.map(({ path, mime_type: type }) => `${path} ${type}`).toSorted()).toEqual([
      'deep/er/report.md text/markdown',
      't.csv text/csv',
    ]);
    const types = (await eventsOf(session)).map(({ type }) => type);
    expect(types.filter((type) => type === 'session.artifact_stored')).toHaveLength(2);
    expect(types.lastIndexOf('session.artifact_stored')).toBeLessThan(types.lastIndexOf('session.status_idle'));

    // Unchanged: nothing new. Changed: a new file, and the one before goes after a while.
    await driver.send(session, turn('ls /mnt/session/outputs'));
    await ended(session);
    expect(await filesOf(session)).toEqual(first);
    await driver.send(session, turn('echo 3,4 >> /mnt/session/outputs/t.csv'));
    await ended(session);
    const later = await filesOf(session);
    const versions = later.filter(({ path }) => path === 't.csv');
    expect(versions.map(({ size_bytes: size }) => size)).toEqual([8, 4]);
    const { rows } = await api.pool.query<{ left_ms: number }>(
      `SELECT (extract(epoch FROM expires_at - now()) * 1000)::int AS left_ms FROM files WHERE id = $1`,
      [versions[1]!.id],
    );
    expect(rows[0]!.left_ms).toBeLessThanOrEqual(LIMITS.artifactOldVersionMs);

    await api.delete(`/v1/sessions/${session}`).expect(200);
    await driver.until(
      'the sandbox is gone',
      session,
      `EXISTS (SELECT 1 FROM sandboxes b WHERE b.session_id = s.id AND b.state = 'destroyed')`,
    );
    const answer = await api.get(`/v1/files/${versions[0]!.id}/content`).buffer(true).expect(200);
    expect(answer.text).toBe('1,2\n3,4\n');
  },
  BED_PATIENCE_MS * 3,
);

it(
  'text loses what is a secret by its shape, wherever it stands; binary files stay whole',
  async () => {
    const token = 'ghp_x7Kq9mZp2RvT4wYb6NcD8fGh1JkLs3MnP5Qr';
    // In two parts, so that the command itself does not hold it.
    const secret = token.replace('_', '_""');
    const make = `cd /mnt/session/outputs && { seq 1 300000; echo "token ${secret} end"; seq 1 300000; } > text && printf '\\0%s' "${secret}" > bytes`;
    const session = await driver.open(turn(make), [toolset('always_allow')]);
    await ended(session);
    const files = new Map((await filesOf(session)).map(({ id, path }) => [path, id]));
    const content = async (path: string): Promise<Buffer> => {
      const { rows } = await api.pool.query<{ content: Buffer }>(
        'SELECT content FROM file_pieces WHERE file_id = $1 ORDER BY index',
        [files.get(path)],
      );
      return Buffer.concat(rows.map((row) => row.content));
    };
    const text = (await content('text')).toString();
    expect(text).not.toContain(token);
    expect(text).toContain('300000\ntoken [redacted] end\n1\n');
    expect(text.endsWith('\n300000\n')).toBe(true);
    expect((await content('bytes')).toString()).toContain(token);
  },
  BED_PATIENCE_MS * 2,
);

it(
  'what is no regular file, or too large, is told and not taken',
  async () => {
    const size = LIMITS.artifactBytes + 1;
    const make = `cd /mnt/session/outputs && ln -s /etc/passwd link && mkfifo pipe && truncate -s ${size} big && echo fine > fine && printf x > "$(printf 'bad\\377name')"`;
    const session = await driver.open(turn(make), [toolset('always_allow')]);
    await ended(session);
    expect((await filesOf(session)).map(({ path }) => path)).toEqual(['fine']);
    const skipped = (await eventsOf(session)).filter(({ type }) => type === 'session.artifact_skipped');
    expect(skipped.map(({ payload }) => String(payload['reason'])).toSorted()).toEqual([
      'its name cannot be stored',
      expect.stringContaining('larger than'),
      'not a regular file',
      'not a regular file',
    ]);
    await driver.send(session, turn('true'));
    await ended(session);
    const again = (await eventsOf(session)).filter(({ type }) => type === 'session.artifact_skipped');
    expect(again).toHaveLength(skipped.length);
  },
  BED_PATIENCE_MS * 2,
);

it(
  'what an interrupted turn left is taken before the sandbox is destroyed',
  async () => {
    const session = await driver.open(turn('echo kept > /mnt/session/outputs/kept; sleep 300'), [
      toolset('always_allow'),
    ]);
    await driver.until(
      'the command runs',
      session,
      `EXISTS (SELECT 1 FROM effects e WHERE e.session_id = s.id AND e.state = 'started')`,
    );
    await driver.send(session, { type: 'user.interrupt' });
    await ended(session);
    await api.delete(`/v1/sessions/${session}`).expect(200);
    await driver.until(
      'the output is a file',
      session,
      `EXISTS (SELECT 1 FROM files f WHERE f.session_id = s.id AND f.state = 'ready')`,
    );
    expect((await filesOf(session)).map(({ path }) => path)).toEqual(['kept']);
  },
  BED_PATIENCE_MS * 2,
);
