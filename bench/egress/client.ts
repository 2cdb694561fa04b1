import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import http, { type IncomingMessage } from 'node:http';
import https from 'node:https';
import net from 'node:net';
import tls from 'node:tls';

/**
 * Asks the upstream, directly or through the proxy, and prints times as JSON. A process of its own, in the network of a
 * sandbox or of the machine; it imports nothing of ours.
 */
interface Job {
  port: number;
  proxy: boolean;
  caFile: string;
  requests: number;
  connections: number;
  pieces: number;
  events: number;
}

const HOST = 'bench.test';
const job = JSON.parse(process.argv[2] ?? '{}') as Job;
// Once: to read the hundred and more authorities of a whole bundle takes longer than a connection, and programs do it once.
const secureContext = tls.createSecureContext({ ca: readFileSync(job.caFile) });

async function plainConnection(): Promise<net.Socket> {
  if (!job.proxy) {
    const socket = net.connect({ host: '127.0.0.1', port: job.port, noDelay: true });
    await once(socket, 'connect');
    return socket;
  }
  const request = http.request({ host: '127.0.0.1', port: 3128, method: 'CONNECT', path: `${HOST}:${job.port}` });
  request.end();
  const [answer, socket] = (await once(request, 'connect')) as [IncomingMessage, net.Socket];
  if (answer.statusCode !== 200) throw new Error(`the proxy refused: ${answer.statusCode}`);
  return socket;
}

async function connection(): Promise<tls.TLSSocket> {
  const secured = tls.connect({
    socket: await plainConnection(),
    servername: HOST,
    secureContext,
    ALPNProtocols: ['http/1.1'],
  });
  await once(secured, 'secureConnect');
  return secured;
}

/** Asks on this connection and reads all. */
async function get(agent: https.Agent, path: string, onData: (chunk: Buffer) => void): Promise<void> {
  const request = https.get({ host: HOST, port: job.port, path, agent });
  const [answer] = (await once(request, 'response')) as [IncomingMessage];
  if (answer.statusCode !== 200) throw new Error(`status ${answer.statusCode}`);
  answer.on('data', onData);
  await once(answer, 'end');
}

async function agentOn(): Promise<https.Agent> {
  const socket = await connection();
  const agent = new https.Agent({ keepAlive: true, maxSockets: 1 });
  Object.assign(agent, { createConnection: () => socket });
  return agent;
}

const nothing = (): void => undefined;
const times: Record<'kept' | 'fresh' | 'events', number[]> = { kept: [], fresh: [], events: [] };

const agent = await agentOn();
for (let index = -100; index < job.requests; index += 1) {
  const startedMs = performance.now();
  await get(agent, '/', nothing);
  if (index >= 0) times.kept.push(performance.now() - startedMs);
}
for (let index = -5; index < job.connections; index += 1) {
  const startedMs = performance.now();
  const own = await agentOn();
  await get(own, '/', nothing);
  if (index >= 0) times.fresh.push(performance.now() - startedMs);
  own.destroy();
}
const startedMs = performance.now();
let bytes = 0;
await get(agent, `/pieces?n=${job.pieces}`, (chunk) => (bytes += chunk.length));
const bytesPerMs = bytes / (performance.now() - startedMs);
await get(agent, `/events?n=${job.events}`, (chunk) => {
  const now = process.hrtime.bigint();
  for (const [, sent = '0'] of chunk.toString().matchAll(/data: (\d+)/g))
    times.events.push(Number(now - BigInt(sent)) / 1e6);
});
process.stdout.write(JSON.stringify({ ...times, mibPerS: (bytesPerMs * 1_000) / 1024 / 1024 }));
process.exit(0);
