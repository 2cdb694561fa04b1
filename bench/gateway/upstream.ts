import { createServer, type ServerResponse } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import { readPlay, type Play } from './play.ts';

const MESSAGE = { id: 'msg_bench', type: 'message', role: 'assistant', model: 'claude-opus-5', stop_sequence: null };
const frame = (event: { type: string; [field: string]: unknown }): string =>
  `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`;
const usage = { input_tokens: 250, cache_creation_input_tokens: 0, cache_read_input_tokens: 0 };
const ANSWER = JSON.stringify({
  ...MESSAGE,
  content: [{ type: 'text', text: 'The answer of the double. '.repeat(20) }],
  stop_reason: 'end_turn',
  usage: { ...usage, output_tokens: 100 },
});
const HEAD =
  frame({ type: 'message_start', message: { ...MESSAGE, content: [], usage: { ...usage, output_tokens: 1 } } }) +
  frame({ type: 'content_block_start', index: 0, content_block: { type: 'text', text: '' } });
const PIECE = frame({
  type: 'content_block_delta',
  index: 0,
  delta: { type: 'text_delta', text: 'a few words of it ' },
});
const tail = (events: number): string =>
  frame({ type: 'content_block_stop', index: 0 }) +
  frame({
    type: 'message_delta',
    delta: { stop_reason: 'end_turn' },
    usage: { ...usage, output_tokens: events * 4 },
  }) +
  frame({ type: 'message_stop' });

async function stream(res: ServerResponse, { events, paceMs }: Required<Play>): Promise<void> {
  res.writeHead(200, { 'content-type': 'text/event-stream', 'request-id': 'req_bench' });
  res.write(HEAD);
  for (let event = 0; event < events; event += 1) {
    if (paceMs > 0) await delay(paceMs);
    if (res.destroyed) return;
    res.write(PIECE);
  }
  res.end(tail(events));
}

/** A provider double in its own process: prints its port, answers Messages requests, swallows traces. */
const server = createServer((req, res) => {
  const chunks: Buffer[] = [];
  req.on('data', (chunk: Buffer) => chunks.push(chunk));
  req.on('end', () => {
    if (req.url?.startsWith('/v1/messages') !== true) {
      res.writeHead(200, { 'content-type': 'application/json' }).end('{}');
      return;
    }
    const play = readPlay(Buffer.concat(chunks));
    if (play.events > 0) void stream(res, play);
    else res.writeHead(200, { 'content-type': 'application/json', 'request-id': 'req_bench' }).end(ANSWER);
  });
});
server.keepAliveTimeout = 120_000;
server.listen(0, '127.0.0.1', () => {
  const address = server.address();
  process.send?.({ port: typeof address === 'object' && address !== null ? address.port : 0 });
});
process.on('disconnect', () => process.exit(0));
