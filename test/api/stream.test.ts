import type { AddressInfo } from 'node:net';
import type { Server } from 'node:http';
import { createServer } from 'node:http';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { EventStream } from '../../api/event-stream.ts';
import type { LiveFrame } from '../../client/index.ts';
import { createClient } from '../../client/index.ts';
import type { SessionEvent } from '../../contracts/events.ts';
import { withTransaction } from '../../db/pool.ts';
import { appendEvents, notifyDelta } from '../../db/queries/events.ts';
import { setTerminated } from '../../db/queries/session-status.ts';
import type { TestApi } from './support.ts';
import { makeSession, testApi } from './support.ts';

let api: TestApi;
let server: Server;
let url: string;
beforeAll(async () => {
  api = await testApi();
  api.services.hub.start();
  server = createServer(api.app);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterAll(async () => {
  api.services.hub.endAll();
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  await api.close();
});

function open(sessionId: string, query = '', headers: Record<string, string> = {}): Promise<Response> {
  return fetch(`${url}/v1/sessions/${sessionId}/events/stream${query}`, {
    headers: { authorization: `Bearer ${api.key}`, ...headers },
    signal: AbortSignal.timeout(30_000),
  });
}

/** Raw frames up to and including the one `until` accepts. */
async function readFrames(response: Response, until: (frame: string) => boolean): Promise<string[]> {
  const frames: string[] = [];
  let rest = '';
  for await (const chunk of response.body!.pipeThrough(new TextDecoderStream())) {
    rest += chunk;
    for (let end = rest.indexOf('\n\n'); end !== -1; end = rest.indexOf('\n\n')) {
      const frame = rest.slice(0, end);
      rest = rest.slice(end + 2);
      if (!frame.startsWith('event: ping')) frames.push(frame);
      if (until(frame)) return frames;
    }
  }
  return frames;
}

const append = (sessionId: string, texts: string[]) =>
  withTransaction(api.pool, (tx) =>
    appendEvents(
      tx,
      sessionId,
      texts.map((text) => ({ type: 'agent.message', payload: { content: [{ type: 'text', text }] } })),
    ),
  );
const seqOf = (frame: string) => Number(/^id: (\d+)$/m.exec(frame)?.[1]);

it('begins now, and every frame has event, id and data', async () => {
  const id = await makeSession(api);
  await append(id, ['old']);
  const response = await open(id);
  expect(response.headers.get('content-type')).toContain('text/event-stream');
  await append(id, ['new']);
  const frames = await readFrames(response, (frame) => frame.includes('"new"'));
  expect(frames).toHaveLength(1);
  const data = JSON.parse(/^data: (.*)$/m.exec(frames[0]!)![1]!) as SessionEvent;
  expect(frames[0]).toMatch(/^event: agent.message\nid: 2\ndata: /);
  expect(data).toMatchObject({ seq: 2, type: 'agent.message', content: [{ type: 'text', text: 'new' }] });
});

it('replays after Last-Event-ID or ?after without gap or repeat while events keep coming', async () => {
  const id = await makeSession(api);
  await append(
    id,
    Array.from({ length: 250 }, (_, i) => `early ${i}`),
  );
  let writing = true;
  const writer = (async () => {
    for (let i = 0; i < 50; i += 1) await append(id, [`late ${i}`]);
    writing = false;
  })();
  const streams = await Promise.all([open(id, '?after=10'), open(id, '', { 'last-event-id': '200' })]);
  const [all, tail] = await Promise.all(
    streams.map((stream) => readFrames(stream, (frame) => frame.includes('late 49'))),
  );
  await writer;
  expect(writing).toBe(false);
  expect(all!.map(seqOf)).toEqual(Array.from({ length: 290 }, (_, i) => 11 + i));
  expect(tail!.map(seqOf)).toEqual(Array.from({ length: 100 }, (_, i) => 201 + i));
});

it('goes on after its listening connection was cut', async () => {
  const id = await makeSession(api);
  const response = await open(id);
  const reading = readFrames(response, (frame) => frame.includes('after the cut'));
  const cut = await api.pool.query(
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'longhaul-api-events' AND datname = current_database()`,
  );
  expect(cut.rowCount).toBe(1);
  await append(id, ['after the cut']);
  expect((await reading).map(seqOf)).toEqual([1]);
});

it('shows live previews to those who ask, and the event after them', async () => {
  const id = await makeSession(api);
  const preview = { sessionId: id, eventId: 'sevt_live', eventType: 'agent.message' as const };
  const watching = readFrames(await open(id, '?event_deltas[]=agent.message'), (frame) => frame.includes('"done"'));
  const blind = readFrames(await open(id), (frame) => frame.includes('"done"'));
  await notifyDelta(api.pool, preview);
  await notifyDelta(api.pool, { ...preview, text: 'Hel' });
  await notifyDelta(api.pool, { ...preview, text: 'lo' });
  await notifyDelta(api.pool, { ...preview, eventId: 'sevt_think', eventType: 'agent.thinking', text: 'hmm' });
  await withTransaction(api.pool, (tx) =>
    appendEvents(tx, id, [
      { id: 'sevt_live', type: 'agent.message', payload: { content: [{ type: 'text', text: 'Hello' }] } },
    ]),
  );
  await notifyDelta(api.pool, { ...preview, text: 'too late' });
  await append(id, ['done']);
  const types = (await watching).map((frame) => /^event: (.*)$/m.exec(frame)![1]);
  expect(types).toEqual(['event_start', 'event_delta', 'event_delta', 'agent.message', 'agent.message']);
  expect((await blind).map(seqOf)).toEqual([1, 2]);
});

it('ends when the session has ended, and is 404 JSON for an unknown one', async () => {
  const id = await makeSession(api);
  const reading = readFrames(await open(id), () => false);
  await withTransaction(api.pool, (tx) => setTerminated(tx, id, 'test'));
  expect((await reading).at(-1)).toContain('event: session.status_terminated');
  expect(await readFrames(await open(id), () => false)).toEqual([]);
  expect((await readFrames(await open(id, '?after=0'), () => false)).map(seqOf)).toEqual([1]);
  const missing = await open('sesn_none');
  expect(missing.status).toBe(404);
  expect(((await missing.json()) as { error: { code: string } }).error.code).toBe('not_found');
});

it('is followed by our client over lost connections, each event once', async () => {
  const client = createClient({ apiUrl: url, apiKey: api.key });
  const id = await makeSession(api);
  const seen: (SessionEvent | LiveFrame)[] = [];
  const following = (async () => {
    for await (const event of client.sessions.follow(id, { after: 0 })) seen.push(event);
  })();
  for (let round = 0; round < 3; round += 1) {
    await append(id, [`round ${round}`]);
    await expect.poll(() => seen.length, { timeout: 60_000 }).toBe(round + 1);
    server.closeAllConnections();
  }
  await withTransaction(api.pool, (tx) => setTerminated(tx, id, 'test'));
  await following;
  expect(seen.map((event) => 'seq' in event && event.seq)).toEqual([1, 2, 3, 4]);
});

it('a preview held back while the log is read never follows its event', async () => {
  const id = await makeSession(api);
  const [event] = await append(id, ['final']);
  const eventId = event?.id ?? '';
  const viewer = createServer((_, res) => {
    const stream = new EventStream({
      res: res as ConstructorParameters<typeof EventStream>[0]['res'],
      pool: api.pool,
      log: api.services.logger,
      sessionId: id,
      after: 0,
      previews: ['agent.message'],
    });
    stream.open();
    // The read of the log is under way from here on.
    stream.delta({ sessionId: id, eventId, eventType: 'agent.message', text: 'fin' });
    stream.delta({ sessionId: id, eventId: 'sevt_next', eventType: 'agent.message', text: 'next' });
  });
  await new Promise<void>((resolve) => viewer.listen(0, '127.0.0.1', resolve));
  const response = await fetch(`http://127.0.0.1:${(viewer.address() as AddressInfo).port}`);
  const frames = await readFrames(response, (frame) => frame.includes('"next"'));
  expect(frames.map((frame) => frame.split('\n')[0])).toEqual([
    'event: agent.message',
    'event: event_start',
    'event: event_delta',
  ]);
  expect(frames.filter((frame) => frame.includes(eventId))).toHaveLength(1);
  viewer.closeAllConnections();
  await new Promise((resolve) => viewer.close(resolve));
});

it('reads large events a few at a time: pages are cut and go on, the stream shows all', async () => {
  const id = await makeSession(api);
  const large = 'x'.repeat(3 * 1024 * 1024);
  await append(id, ['a', large, large, large, 'b', large.repeat(3), 'c']);
  const whole = await api.get(`/v1/sessions/${id}/events?types[]=agent.message&limit=4`).expect(200);
  expect((whole.body.data as SessionEvent[]).map(({ seq }) => seq)).toEqual([1, 2, 3]);
  for (const [order, expected] of [
    ['asc', [[1, 2, 3], [4, 5], [6], [7]]],
    ['desc', [[7], [6], [5, 4, 3], [2, 1]]],
  ] as const) {
    const pages: number[][] = [];
    for (let page = ''; ;) {
      const { body } = await api.get(`/v1/sessions/${id}/events?limit=100&order=${order}${page}`).expect(200);
      pages.push((body.data as SessionEvent[]).map(({ seq }) => seq));
      if (body.next_page === null) break;
      page = `&page=${body.next_page as string}`;
    }
    expect(pages).toEqual(expected);
  }
  const frames = await readFrames(await open(id, '?after=0'), (frame) => seqOf(frame) === 7);
  expect(frames.map(seqOf)).toEqual([1, 2, 3, 4, 5, 6, 7]);
});
