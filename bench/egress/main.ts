import { execFile, fork, type ChildProcess } from 'node:child_process';
import { generateKeyPairSync, X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs, promisify } from 'node:util';
import { setTimeout as delay } from 'node:timers/promises';
import { OwnStack } from '../../cli/demo/own-stack.ts';
import { messageOf, print, printJson, say } from '../../cli/output.ts';
import { createClient } from '../../client/index.ts';
import { authorityCertificate, leafCertificate, signerOf } from '../../egress/tls/certificates.ts';
import { scriptMessage, showRow, type Row } from '../measurement.ts';
import { median, quantile } from '../stats.ts';

const HELP = 'npm run bench:egress -- [--quick] [--json]';
const ROUNDS = 5;
const run = promisify(execFile);
const compiled = (name: string): string => fileURLToPath(new URL(`${name}.js`, import.meta.url));

interface Times {
  kept: number[];
  fresh: number[];
  events: number[];
  mibPerS: number;
}

/** An upstream with an authority of its own, which only the measured broker is told to trust. */
async function startUpstream(folder: string): Promise<{ child: ChildProcess; port: number; caFile: string }> {
  const authority = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const certificate = authorityCertificate(authority.privateKey, 'bench');
  const leaf = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const spki = leaf.publicKey.export({ type: 'spki', format: 'der' });
  const signer = signerOf(authority.privateKey, new X509Certificate(certificate));
  const files = ['ca.pem', 'key.pem', 'cert.pem'].map((name) => path.join(folder, name));
  const [caFile = '', keyFile = '', certFile = ''] = files;
  writeFileSync(caFile, certificate);
  writeFileSync(keyFile, leaf.privateKey.export({ type: 'pkcs8', format: 'pem' }));
  writeFileSync(certFile, leafCertificate('bench.test', spki, signer));
  const child = fork(compiled('upstream'), [keyFile, certFile]);
  const [port] = (await once(child, 'message')) as [number];
  return { child, port, caFile };
}

/** A session whose sandbox runs and may reach the upstream; returns the process that holds its network. */
async function openSandbox(stack: OwnStack): Promise<number> {
  const { apiUrl, apiKey } = await stack.start();
  const client = createClient({ apiUrl, apiKey });
  const agent = await client.agents.create({
    name: 'Bench',
    model: 'scripted',
    tools: [{ type: 'agent_toolset_20260401' }],
  });
  const networking = {
    type: 'limited' as const,
    allowed_hosts: ['bench.test'],
    private_addresses: ['127.0.0.1'],
  };
  const environment = await client.environments.create({ name: 'bench', config: { type: 'cloud', networking } });
  const session = await client.sessions.create({ agent: agent.id, environment_id: environment.id });
  const command = { name: 'bash', input: { command: 'sleep 600 & echo up' } };
  await client.sessions.send(session.id, [scriptMessage([{ tools: [command] }, { text: 'done' }])]);
  const folder = path.join(stack.home, 'sandboxes');
  const deadlineMs = Date.now() + 120_000;
  while (Date.now() < deadlineMs) {
    const { status } = await client.sessions.get(session.id);
    const [holder] = readdirSync(folder).flatMap((name) => holderOf(path.join(folder, name, 'sandbox.json')));
    if (status === 'idle' && holder !== undefined) return holder;
    await delay(100);
  }
  throw new Error('no sandbox came up');
}

function holderOf(record: string): number[] {
  try {
    const { holder } = JSON.parse(readFileSync(record, 'utf8')) as { holder: { pid: number } | null };
    return holder === null ? [] : [holder.pid];
  } catch {
    return [];
  }
}

async function measured(job: object, holder: number | null): Promise<Times> {
  const own = [process.execPath, compiled('client'), JSON.stringify(job)];
  const join = process.getuid?.() === 0 ? ['--net'] : ['--user', '--preserve-credentials', '--net'];
  const inside = holder === null ? [] : ['nsenter', '--target', String(holder), ...join, '--'];
  const [program = '', ...args] = [...inside, ...own];
  const { stdout } = await run(program, args, { maxBuffer: 64 * 1024 * 1024, timeout: 300_000 });
  return JSON.parse(stdout) as Times;
}

/** The round with the lowest median: what else the machine did disturbs some rounds, and helps none. */
function quietest(all: Times[], name: 'kept' | 'fresh' | 'events'): number[] {
  const rounds = all.map((each) => each[name]).toSorted((a, b) => median(a) - median(b));
  return rounds[0] ?? [];
}

function rowsOf(direct: Times[], brokered: Times[]): Row[] {
  const row = (name: string, key: 'kept' | 'fresh' | 'events', target?: number): Row => {
    const [before, after] = [quietest(direct, key), quietest(brokered, key)];
    const [low, high] = [median(before), median(after)];
    const tail = `p95 ${quantile(before, 0.95).toFixed(2)} → ${quantile(after, 0.95).toFixed(2)} ms`;
    const note = `direct ${low.toFixed(2)}, brokered ${high.toFixed(2)} ms (× ${(high / low).toFixed(1)}); ${tail}`;
    return {
      name,
      value: high - low,
      unit: 'ms',
      samples: after.length,
      note,
      ...(target === undefined ? {} : { target }),
    };
  };
  const speeds = [direct, brokered].map((all) => Math.max(...all.map(({ mibPerS }) => mibPerS)));
  const [open = 0, through = 0] = speeds;
  return [
    row('broker adds to a kept connection, p50', 'kept', 1),
    row('broker adds to a new connection, p50', 'fresh', 8),
    row('broker adds to an event of a stream, p50', 'events', 5),
    {
      name: '64 MiB through the broker',
      value: 64 / through,
      unit: 's',
      samples: brokered.length,
      note: `direct ${open.toFixed(0)}, brokered ${through.toFixed(0)} MiB/s (× ${(open / through).toFixed(1)})`,
    },
  ];
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: { quick: { type: 'boolean' }, json: { type: 'boolean' }, help: { type: 'boolean' } },
  });
  if (values.help === true) {
    print(HELP);
    return 0;
  }
  const folder = mkdtempSync(path.join(os.tmpdir(), 'longhaul-bench-egress-'));
  const { child, port, caFile } = await startUpstream(folder);
  const hostsFile = path.join(folder, 'hosts');
  writeFileSync(hostsFile, '127.0.0.1 bench.test\n');
  const env = { LONGHAUL_EGRESS_HOSTS: hostsFile, LONGHAUL_EGRESS_UPSTREAM_CA_FILE: caFile };
  const stack = new OwnStack('bench-egress', env);
  try {
    const holder = await openSandbox(stack);
    const quick = values.quick === true;
    const job = {
      port,
      requests: quick ? 200 : 1_000,
      connections: quick ? 20 : 100,
      pieces: quick ? 32 : 256,
      events: 20,
    };
    const proxyCa = path.join(stack.home, 'egress', 'trust-bundle.pem');
    const direct: Times[] = [];
    const brokered: Times[] = [];
    for (let round = 0; round < ROUNDS; round += 1) {
      direct.push(await measured({ ...job, proxy: false, caFile }, null));
      brokered.push(await measured({ ...job, proxy: true, caFile: proxyCa }, holder));
      say(`round ${round + 1} of ${ROUNDS} done`);
    }
    const rows = rowsOf(direct, brokered);
    if (values.json === true) printJson(rows);
    else for (const row of rows) print(showRow(row));
    return rows.every(({ value, target }) => target === undefined || value <= target) ? 0 : 1;
  } catch (error) {
    say(messageOf(error));
    return 1;
  } finally {
    child.disconnect();
    await stack.stop();
    rmSync(stack.home, { recursive: true, force: true });
    rmSync(folder, { recursive: true, force: true });
  }
}

process.exitCode = await main();
