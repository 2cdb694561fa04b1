// A process of its own around a sandbox provider of the built product: one JSON call a line in, one JSON answer a line out.
// Plain JavaScript, since it is run by node alone. Arguments: the built index, the root directory, the uid to become or "".
import { createInterface } from 'node:readline';
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
const provider = createSandboxProviders({ rootDir, logger: silent }).local;

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

async function answer({ id, method, args }) {
  const abort = new AbortController();
  aborts.set(id, abort);
  try {
    let value = await (method === 'runTool' ? runTool : provider[method].bind(provider))(...args, abort.signal);
    if (method === 'list') value = undefined;
    return { id, value: value ?? null };
  } catch (error) {
    return { id, error: { name: error.name, code: error.code ?? null, message: error.message } };
  } finally {
    aborts.delete(id);
  }
}

async function listed({ id, args }) {
  const found = [];
  for await (const info of provider.list(...args, new AbortController().signal)) found.push(info);
  return { id, value: found };
}

for await (const line of createInterface({ input: process.stdin })) {
  const call = decode(line);
  if (call.method === 'abort') aborts.get(call.id)?.abort();
  else
    void (call.method === 'list' ? listed(call) : answer(call)).then((reply) =>
      process.stdout.write(`${encode(reply)}\n`),
    );
}
