import { createPrivateKey, createPublicKey, generateKeyPairSync, randomBytes, X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import type { LonghaulClient } from '../../client/index.ts';
import { LonghaulError } from '../../contracts/error-codes.ts';
import type { SessionEvent } from '../../contracts/events.ts';
import { authorityCertificate, leafCertificate, signerOf } from '../../egress/tls/certificates.ts';
import type { DevJson } from '../stack/home.ts';
import { stopReasonOf, textOf } from './events.ts';
import type { Printer } from './printer.ts';
import { scripted } from './story.ts';

/** Names that only the demo's stack knows; the second is not allowed. */
const HOST = 'api.demo.test';
const OTHER_HOST = 'elsewhere.demo.test';
const NO_CURL = 'no curl here';

/** What came of a command that used a credential it cannot see. */
export interface Guarded {
  /** The value, which only the server may have got. */
  secret: string;
  /** What the commands printed. */
  results: string[];
  /** Each `authorization` the server got. */
  received: string[];
}

/** A server with https on this machine, which a session is allowed to call. */
export class GuardedUpstream {
  readonly received: string[] = [];
  readonly #folder = mkdtempSync(path.join(os.tmpdir(), 'longhaul-demo-server-'));
  readonly #server: Server;

  constructor() {
    const authority = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
    const certificate = authorityCertificate(authority, 'server of the Longhaul demo');
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const key = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
    const publicKey = createPublicKey(createPrivateKey(key)).export({ type: 'spki', format: 'der' });
    const cert = leafCertificate(HOST, publicKey, signerOf(authority, new X509Certificate(certificate)));
    writeFileSync(path.join(this.#folder, 'ca.pem'), certificate);
    writeFileSync(path.join(this.#folder, 'hosts'), `127.0.0.1 ${HOST} ${OTHER_HOST}\n`);
    this.#server = createServer({ key, cert }, (req, res) => {
      this.received.push(req.headers.authorization ?? '');
      res.end(`the server got: ${req.headers.authorization ?? 'nothing'}\n`);
    });
  }

  /** What the stack's broker is told, so that it finds and trusts the server. */
  get env(): Record<string, string> {
    return {
      LONGHAUL_EGRESS_HOSTS: path.join(this.#folder, 'hosts'),
      LONGHAUL_EGRESS_UPSTREAM_CA_FILE: path.join(this.#folder, 'ca.pem'),
    };
  }

  async listen(): Promise<number> {
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
    return (this.#server.address() as AddressInfo).port;
  }

  close(): void {
    this.#server.close();
    this.#server.closeAllConnections();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** A session of the offline model that calls the server with a placeholder, and then a host it may not reach. */
export async function runGuarded(
  { devJson, printer, signal }: { devJson: DevJson; printer: Printer; signal: AbortSignal },
  client: LonghaulClient,
  upstream: GuardedUpstream,
): Promise<Guarded> {
  const port = await upstream.listen();
  const secret = `demo-${randomBytes(20).toString('hex')}`;
  const session = await openGuarded(devJson, client, { secret, message: guardedMessage(port) });
  const events: SessionEvent[] = [];
  for await (const frame of client.sessions.follow(session, { after: 0, signal })) {
    if (!('seq' in frame)) continue;
    events.push(frame);
    if (stopReasonOf(frame) !== undefined) break;
  }
  const results = events.filter((event) => event.type === 'agent.tool_result').map(textOf);
  printer.event('network', `${session}: ${results.join(' ').replaceAll('\n', ' ').trim().slice(0, 160)}`);
  return { secret, results, received: upstream.received };
}

function guardedMessage(port: number): string {
  const curl = `curl -sS -H "authorization: Bearer $DEMO_TOKEN"`;
  const commands = [
    `command -v curl > /dev/null || { echo ${NO_CURL}; exit; }; echo "in the sandbox: Bearer $DEMO_TOKEN"; ${curl} https://${HOST}:${port}/`,
    `curl -s -o /dev/null -w 'another host: %{http_code}\\n' https://${OTHER_HOST}:${port}/; true`,
  ];
  const steps = commands.map((command) => ({ tools: [{ name: 'bash', input: { command } }] }));
  return scripted('Call the server.', [...steps, { text: 'called' }]);
}

async function openGuarded(
  devJson: DevJson,
  client: LonghaulClient,
  { secret, message }: { secret: string; message: string },
): Promise<string> {
  const vault = await post(devJson, '/v1/vaults', { display_name: 'demo' });
  await post(devJson, `/v1/vaults/${vault}/credentials`, {
    auth: {
      type: 'environment_variable',
      secret_name: 'DEMO_TOKEN',
      secret_value: secret,
      networking: { type: 'limited', allowed_hosts: [HOST] },
    },
  });
  const environment = await client.environments.create({
    name: 'demo with one host',
    config: {
      type: 'cloud',
      networking: { type: 'limited', allowed_hosts: [HOST], private_addresses: ['127.0.0.1'] },
    },
  });
  const agent = await client.agents.create({
    name: 'Demo caller',
    model: 'scripted',
    tools: [{ type: 'agent_toolset_20260401' }],
  });
  const session = await client.sessions.create({
    agent: agent.id,
    environment_id: environment.id,
    vault_ids: [vault],
    initial_events: [{ type: 'user.message', content: message }],
  });
  return session.id;
}

async function post({ apiUrl, apiKey }: DevJson, at: string, body: object): Promise<string> {
  const response = await fetch(`${apiUrl}${at}`, {
    method: 'POST',
    headers: { authorization: `Bearer ${apiKey}`, 'content-type': 'application/json' },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(10_000),
  });
  const { id } = (await response.json()) as { id?: string };
  if (!response.ok || id === undefined) throw new LonghaulError('internal', `${at} answered ${response.status}`);
  return id;
}

/** null where the machine has no curl: nothing was tried then. */
export function guardedClaim({ secret, results, received }: Guarded): { ok: boolean; text: string } | null {
  const [call = '', other = ''] = results;
  if (call.includes(NO_CURL)) return null;
  const shown = /in the sandbox: Bearer (\S+)/.exec(call)?.[1] ?? '';
  const status = /another host: (\d+)/.exec(other)?.[1] ?? 'no answer';
  const ok =
    shown !== '' &&
    shown !== secret &&
    !results.join('\n').includes(secret) &&
    received.length === 1 &&
    received[0] === `Bearer ${secret}` &&
    status === '403';
  const text = `a command called an allowed host with a credential it cannot see (it has ${shown.slice(0, 8)}…, ${received.length} request came with the real one), another host was refused (${status})`;
  return { ok, text };
}
