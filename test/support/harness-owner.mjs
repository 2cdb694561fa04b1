// A worker's part of the server host, in a process of its own that may be killed. Arguments: the built servers.js, the root
// folder, the program of the server, its gate. Prints the server as JSON once it has it, and stays.
import { pathToFileURL } from 'node:url';

const [builtServers, root, program, gate] = process.argv.slice(2);
const { acquireServer } = await import(pathToFileURL(builtServers).href);
const logger = { warn() {}, info() {}, error() {}, debug() {} };
const spec = {
  name: 'test',
  binary: process.execPath,
  args: (port) => [program, String(port), gate],
  env: ({ secret }) => ({ SECRET: secret }),
  endpoint: (port) => `http://127.0.0.1:${port}`,
  isReady: async ({ endpoint, secret }, signal) =>
    (await fetch(endpoint, { signal, headers: { authorization: secret } })).ok,
};
process.stdout.write('asking\n');
const server = await acquireServer(
  { root, idleMs: 600_000, sickMs: 60_000, logger },
  spec,
  new AbortController().signal,
);
process.stdout.write(`${JSON.stringify(server)}\n`);
setInterval(() => undefined, 60_000);
