import { writeFileSync } from 'node:fs';
import os from 'node:os';
import { parseArgs } from 'node:util';
import { messageOf, print, say } from '../../cli/output.ts';
import { showRow } from '../measurement.ts';
import type { Row } from '../measurement.ts';
import { CASES } from './cases.ts';
import { openWay } from './client.ts';
import { openWorld } from './world.ts';

const HELP = `npm run bench:gateway -- [--only NAME]... [--quick] [--json FILE] [--profile DIR]
  names: ${CASES.map(({ name }) => name).join(', ')}`;

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      only: { type: 'string', multiple: true, default: [] },
      quick: { type: 'boolean', default: false },
      json: { type: 'string' },
      profile: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  const unknown = values.only.filter((name) => !CASES.some((known) => known.name === name));
  if (values.help || unknown.length > 0) {
    print(HELP);
    return values.help ? 0 : 2;
  }
  const loadAtStart = os.loadavg()[0] ?? 0;
  say('Starting Postgres, a provider double and a gateway, each a process of its own.');
  const world = await openWorld(values.profile);
  const rows: Row[] = [];
  let failed = 0;
  const direct = openWay('direct', world.upstreamUrl, 'none');
  const gateway = openWay('gateway', world.gatewayUrl, world.key);
  try {
    for (const { name, run } of CASES.filter((one) => values.only.length === 0 || values.only.includes(one.name))) {
      try {
        rows.push(...(await run({ world, direct, gateway, quick: values.quick })));
        say(`${name}: done`);
      } catch (error) {
        failed += 1;
        say(`${name}: FAILED: ${messageOf(error)}`);
      }
    }
  } finally {
    await Promise.all([direct.pool.destroy(), gateway.pool.destroy()]);
    await world.close();
  }
  const machine = { cores: os.cpus().length, node: process.version, loadAtStart, quick: values.quick };
  print(`${machine.cores} cores, Node ${machine.node}, load at start ${loadAtStart.toFixed(1)}\n`);
  for (const row of rows) print(showRow(row));
  if (values.json !== undefined) {
    const takenAt = new Date().toISOString();
    writeFileSync(values.json, `${JSON.stringify({ taken_at: takenAt, machine, rows }, null, 2)}\n`);
  }
  return failed === 0 ? 0 : 1;
}

try {
  process.exit(await main());
} catch (error) {
  say(`bench: ${messageOf(error)}`);
  process.exit(1);
}
