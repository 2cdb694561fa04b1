// A process of its own around a sandbox provider of the built product: one JSON call a line in, one JSON answer a line out.
// Plain JavaScript, since it is run by node alone. Arguments: the built index, the root directory, the uid to become or "".
// SANDBOX_PROVIDER: which provider, and what `createSandboxProviders` is given besides, as JSON; absent: the local one.
import { once } from 'node:events';
import { connect } from 'node:net';
import { createInterface } from 'node:readline';
import { pipeline } from 'node:stream/promises';
import { pathToFileURL } from 'node:url';

const [builtIndex, rootDir, uid] = process.argv.slice(2);
const { createSandboxProviders } = await import(pathToFileURL(builtIndex).href);
const tools = await import(new URL('../effects/files.js', pathToFileURL(builtIndex)).href);
if (uid !== '') {
  process.setgroups([]);
  process.setgid(Number(uid));
  process.setuid(Number(uid));
}
const silent = { warn() {}, info() {}, error() {}, debug() {} };
const { name: providerName, ...given } = JSON.parse(process.env.SANDBOX_PROVIDER ?? '{"name":"local"}');
delete process.env.SANDBOX_PROVIDER;
const provider = createSandboxProviders({ rootDir, logger: silent, ...given })[providerName];

const encode = (value) =>
  JSON.stringify(value, (_key, each) =>
    each !== null && typeof each === 'object' && each.type === 'Buffer'
      ? { base64: Buffer.from(each.data).toString('base64') }
      : each instanceof Uint8Array
        ? { base64: Buffer.from(each).toString('base64') }
        : each,
  );
const decode = (text) =>
  JSON.parse(text, (_key, each) =>
    each !== null && typeof each === 'object' && typeof each.base64 === 'string'
      ? Buffer.from(each.base64, 'base64')
      : each,
  );

const aborts = new Map();

/** A tool as the worker runs it, without the ledger around it. */
async function runTool(name, ref, execId, input, signal) {
  const lease = { id: 'lease', ref, provider };
  const context = { lease, effectId: execId, execId, timeoutMs: 150_000, resumed: false, signal };
  return tools[name](context, input, undefined, () => Promise.resolve());
}

/** How the sources of running writes ended: told beside their bytes. */
const endings = new Map();
const ports = new Map();

async function opened(socketPath) {
  const socket = connect(socketPath);
  await once(socket, 'connect');
  return socket;
}

/** What has bytes that are no JSON goes over a socket of its own. */
const streamed = {
  async writeStream(id, ref, path, socketPath, signal) {
    const socket = await opened(socketPath);
    const ending = new Promise((resolve) => endings.set(id, resolve));
    async function* content() {
      yield* socket;
      if ((await ending) !== 'ended') throw new Error('the source broke');
    }
    try {
      return await provider.writeStream(ref, path, content(), signal);
    } finally {
      socket.destroy();
    }
  },
  async readStream(_id, ref, path, socketPath, signal) {
    const socket = await opened(socketPath);
    let isLeft = false;
    socket.on('error', () => (isLeft = true)).on('close', () => (isLeft = true));
    const closed = once(socket, 'close').catch(() => undefined);
    try {
      for await (const piece of provider.readStream(ref, path, signal)) {
        if (isLeft) return;
        if (!socket.write(piece)) await Promise.race([once(socket, 'drain'), closed]).catch(() => undefined);
      }
    } finally {
      socket.end();
    }
  },
  async openPort(id, ref, port, signal) {
    const target = await provider.openPort(ref, port, signal);
    if (target.type === 'url') return target;
    ports.set(id, target);
    return { type: 'stream', id };
  },
  async connectPort(_id, portId, socketPath) {
    const inside = await ports.get(portId).connect();
    const socket = await opened(socketPath);
    pipeline(socket, inside).catch(() => undefined);
    pipeline(inside, socket).catch(() => undefined);
  },
};

async function listed(method, args) {
  const found = [];
  for await (const info of provider[method](...args)) found.push(info);
  return found;
}

function called(id, method, args) {
  if (method === 'runTool') return runTool(...args);
  if (method === 'list' || method === 'listSnapshots') return listed(method, args);
  if (method in streamed) return streamed[method](id, ...args);
  // The signal stands before what may be left out.
  if (method === 'pause') return provider.pause(args[0], args.at(-1), args[1]);
  return provider[method](...args);
}

async function answer({ id, method, args }) {
  const abort = new AbortController();
  aborts.set(id, abort);
  try {
    const value = await called(id, method, [...args, abort.signal]);
    return { id, value: value ?? null };
  } catch (error) {
    return { id, error: { name: error.name, code: error.code ?? null, message: error.message } };
  } finally {
    aborts.delete(id);
    endings.delete(id);
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const call = decode(line);
  if (call.method === 'abort') aborts.get(call.id)?.abort();
  else if (call.method === 'ended' || call.method === 'broken') endings.get(call.id)?.(call.method);
  else void answer(call).then((reply) => process.stdout.write(`${encode(reply)}\n`));
}
