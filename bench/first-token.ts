import { EventSourceParserStream } from 'eventsource-parser/stream';
import { openSession, scriptMessage, type BenchContext, type Measurement, type Row } from './measurement.ts';
import { isFirstText, isTurnEnd, SessionWatch } from './session-watch.ts';
import { median, quantile } from './stats.ts';

const TARGET_MS = 60;
/** Long enough that its first piece is not also its last. */
const SCRIPT = [{ text: 'a text that comes in some pieces, one after the other', chunks: 10, chunkMs: 20 }];

/** From the request to the first piece of text, straight at the gateway. */
async function direct({ devJson }: BenchContext): Promise<number> {
  const startedMs = performance.now();
  const response = await fetch(`${devJson.gatewayUrl}/v1/messages`, {
    method: 'POST',
    headers: { 'x-api-key': devJson.apiKey, 'content-type': 'application/json', 'anthropic-version': '2023-06-01' },
    body: JSON.stringify({
      model: 'scripted',
      max_tokens: 1_000,
      stream: true,
      messages: [{ role: 'user', content: scriptMessage(SCRIPT).content }],
    }),
  });
  if (!response.ok || response.body === null) throw new Error(`the gateway answered ${response.status}`);
  let firstMs: number | undefined;
  const events = response.body.pipeThrough(new TextDecoderStream()).pipeThrough(new EventSourceParserStream());
  for await (const { event } of events) {
    if (event === 'content_block_delta') firstMs ??= performance.now() - startedMs;
  }
  if (firstMs === undefined) throw new Error('the gateway sent no text');
  return firstMs;
}

/** From the message to the first piece of text, in a session that had a turn and is idle. */
async function throughSession(context: BenchContext): Promise<number> {
  const { client } = context;
  const sessionId = await openSession(context);
  const watch = new SessionWatch(client, sessionId);
  try {
    const warm = watch.next(isTurnEnd);
    await client.sessions.send(sessionId, [scriptMessage([{ text: 'warm' }])]);
    await warm;
    const first = watch.next(isFirstText);
    const end = watch.next(isTurnEnd);
    const startedMs = performance.now();
    await client.sessions.send(sessionId, [scriptMessage(SCRIPT)]);
    const { atMs } = await first;
    await end;
    return atMs - startedMs;
  } finally {
    watch.close();
  }
}

async function run(context: BenchContext): Promise<Row[]> {
  const samples = context.quick ? 8 : 50;
  const directMs: number[] = [];
  const sessionMs: number[] = [];
  for (let round = -3; round < samples; round += 1) {
    const bare = await direct(context);
    const whole = await throughSession(context);
    if (round < 0) continue;
    directMs.push(bare);
    sessionMs.push(whole);
  }
  const overheadMs = median(sessionMs) - median(directMs);
  const note = `session p50 ${median(sessionMs).toFixed(1)} p99 ${quantile(sessionMs, 0.99).toFixed(1)} ms, bare p50 ${median(directMs).toFixed(1)} ms`;
  return [
    { name: 'first token, over the bare model', value: overheadMs, unit: 'ms', target: TARGET_MS, samples, note },
  ];
}

/** What Longhaul adds to the time until the first text, in interleaved rounds. */
export const firstToken: Measurement = { name: 'first-token', run };
