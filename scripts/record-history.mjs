// Records every run of a workflow of a running stack, for the replay gate:
//   node scripts/record-history.mjs <name> <workflow id>   writes test/replay/histories/<name>-<n>.json
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { Client, Connection } from '@temporalio/client';
import { historyToJSON } from '@temporalio/common/lib/proto-utils.js';

const [name, workflowId] = process.argv.slice(2);
if (name === undefined || workflowId === undefined) {
  console.error('usage: node scripts/record-history.mjs <name> <workflow id>');
  process.exit(2);
}
const home = process.env.LONGHAUL_HOME ?? '.longhaul';
const dev = JSON.parse(readFileSync(path.join(home, 'dev.json'), 'utf8'));
const connection = await Connection.connect({ address: dev.temporalAddress });
const client = new Client({ connection, namespace: dev.temporalNamespace });
const folder = path.join(import.meta.dirname, '..', 'test', 'replay', 'histories');
mkdirSync(folder, { recursive: true });

// Runs are linked backwards: the first event of each names the run it continued.
const histories = [];
let runId = (await client.workflow.getHandle(workflowId).describe()).runId;
while (runId) {
  const history = await client.workflow.getHandle(workflowId, runId).fetchHistory();
  histories.unshift(history);
  runId = history.events[0].workflowExecutionStartedEventAttributes.continuedExecutionRunId;
}
histories.forEach((history, index) => {
  const file = path.join(folder, `${name}-${index + 1}.json`);
  // Who recorded it is nobody's business, and no part of a replay.
  const scrubbed = JSON.parse(historyToJSON(history), (key, value) => (key === 'identity' ? 'worker' : value));
  writeFileSync(file, `${JSON.stringify(scrubbed)}\n`);
  console.log(`${path.basename(file)}: ${history.events.length} events`);
});
await connection.close();
