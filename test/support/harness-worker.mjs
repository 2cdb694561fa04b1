// A worker in a process of its own whose harness is that of the test: it lives there, as a server of a harness does, and is
// asked over a socket. Plain JavaScript, since it is run by node alone. HARNESS_WORKER: what it needs, as JSON.
import { connect } from 'node:net';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { Client, Connection } from '@temporalio/client';
import { NativeConnection, Worker } from '@temporalio/worker';

const given = JSON.parse(process.env.HARNESS_WORKER);
const built = (file) => import(new URL(`${file}.js`, given.dist));
const { createActivities } = await built('activities/index');
const { createPool } = await built('db/pool');
const { createLogger } = await built('telemetry/logger');
const { NO_TRACING } = await built('telemetry/tracing');
const { createDeps } = await built('worker/deps');

const socket = connect(given.harnessPort, '127.0.0.1');
const waiting = new Map();
const hosts = new Map();
let lastId = 0;

const send = (message) => socket.write(`${JSON.stringify(message)}\n`);

function ask(op, args) {
  const id = (lastId += 1);
  send({ id, op, args });
  return new Promise((resolve, reject) => waiting.set(id, { resolve, reject }));
}

async function onLine(line) {
  const message = JSON.parse(line);
  if (message.op !== 'host') {
    const { resolve, reject } = waiting.get(message.id);
    waiting.delete(message.id);
    if (message.error === undefined) resolve(message.value);
    else reject(new Error(message.error));
    return;
  }
  const { id, run, method, args } = message;
  try {
    send({ id, op: 'told', value: (await hosts.get(run)[method](...args)) ?? null });
  } catch (error) {
    send({ id, op: 'told', error: String(error) });
  }
}
createInterface({ input: socket }).on('line', (line) => void onLine(line));

const bytes = (value) => (value === null ? null : Buffer.from(value, 'base64'));
const plain = ({ sandbox: _sandbox, ...spec }) => spec;
const driver = {
  name: 'acp',
  capabilities: () => ask('capabilities', []),
  open: (spec, token) => ask('open', [plain(spec), token]),
  async runTurn(handle, turn, host, signal) {
    const run = (lastId += 1);
    hosts.set(run, host);
    const tell = (what, each) => {
      if (each.aborted) send({ op: 'abort', run, what });
      else each.addEventListener('abort', () => send({ op: 'abort', run, what }), { once: true });
    };
    const outcome = ask('runTurn', [handle, turn, run]);
    tell('cancel', signal);
    tell('park', host.parkSignal);
    tell('detach', host.detachSignal);
    return outcome;
  },
  exportState: async (handle) => bytes(await ask('exportState', [handle])),
  importState: (spec, token, state) => ask('importState', [plain(spec), token, Buffer.from(state).toString('base64')]),
  close: (spec, token, forget) => ask('close', [plain(spec), token, forget]),
};

const pool = createPool({ databaseUrl: given.databaseUrl, applicationName: 'test-harness-worker' });
const connection = await Connection.connect({ address: given.temporalAddress });
const deps = createDeps(given.config, {
  pool,
  temporal: new Client({ connection, namespace: 'default' }),
  logger: createLogger('test-worker', 'silent'),
  tracing: NO_TRACING,
});
deps.harness.driver = () => driver;
const worker = await Worker.create({
  connection: await NativeConnection.connect({ address: given.temporalAddress }),
  taskQueue: given.config.taskQueue,
  workflowBundle: { codePath: fileURLToPath(new URL('workflows/bundle.cjs', given.dist)) },
  activities: createActivities(deps),
  maxHeartbeatThrottleInterval: '1s',
  defaultHeartbeatThrottleInterval: '1s',
  stickyQueueScheduleToStartTimeout: '1s',
});
const running = worker.run();
process.stdout.write('ready\n');
await running;
