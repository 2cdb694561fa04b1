// The broker's data plane in a process of its own, with rules of the test in place of policies. Plain JavaScript, since it is
// run by node alone. EGRESS_HOST: where the built product, the rules, the directory and the log are, as JSON.
import { appendFileSync, readFileSync } from 'node:fs';
import { Transform } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';

const host = JSON.parse(process.env.EGRESS_HOST);
const built = (file) => import(new URL(`egress/${file}.js`, host.dist));
const { Broker } = await built('broker');
const { createControl } = await built('control');
const { readEgressConfig } = await built('config');
const { listenPublicly } = await built('public-listener');
const { Registry } = await import('prom-client');

const config = readEgressConfig({ DATABASE_URL: 'postgres://none', ...host.env });
const rules = () => JSON.parse(readFileSync(host.rulesFile, 'utf8'));
const note = (entry) => appendFileSync(host.logFile, `${JSON.stringify(entry)}\n`);
const silent = { warn: note, error: note, info() {}, debug() {} };

/** Puts one text for another in a stream whose pieces may cut it anywhere. */
function replacing(from, to) {
  let kept = '';
  return () =>
    new Transform({
      transform(chunk, _encoding, done) {
        const text = (kept + chunk.toString('latin1')).replaceAll(from, to);
        const safe = Math.max(0, text.length - from.length + 1);
        kept = text.slice(safe);
        done(null, Buffer.from(text.slice(0, safe), 'latin1'));
      },
      flush(done) {
        done(null, Buffer.from(kept, 'latin1'));
      },
    });
}

const swapped = (pairs, swap) => pairs.map(([name, value]) => [name, value.replaceAll(swap.from, swap.to)]);

const deny = (code) => ({ action: 'deny', status: 403, code, message: `the rules of the test say ${code}` });
const ruleOf = (target) => rules().hosts[target.host];
const limits = (rule) => ({
  requestBodyBytes: rule.requestBytes ?? 1e12,
  responseBodyBytes: rule.responseBytes ?? 1e12,
});

function engine(identity) {
  const record = (asked) => (outcome) => note({ type: 'record', ...identity, ...asked, ...outcome });
  return {
    async connect(target, signal) {
      const rule = ruleOf(target);
      if (rule?.holdMs) await delay(rule.holdMs, undefined, { signal }).catch(() => undefined);
      if (rule === undefined) {
        note({ type: 'denied', ...identity, target });
        return deny('host_not_allowed');
      }
      if (rule.passthrough) return { action: 'passthrough', limits: limits(rule), record: record({ target }) };
      return { action: 'terminate' };
    },
    async request(head, signal) {
      const rule = ruleOf(head.target);
      if (rule?.holdMs) await delay(rule.holdMs, undefined, { signal }).catch(() => undefined);
      const { target, method, path } = head;
      if (rule === undefined || rule.deny?.includes(path)) {
        note({ type: 'denied', ...identity, target, method, path });
        return deny(rule === undefined ? 'host_not_allowed' : 'path_not_allowed');
      }
      const allowed = { action: 'allow', head, limits: limits(rule), record: record({ target, method, path }) };
      if (rule.swap === undefined) return allowed;
      const { from, to } = rule.swap;
      return {
        ...allowed,
        head: { ...head, headers: swapped(head.headers, rule.swap) },
        requestBody: replacing(from, to),
        response: ({ headers }) => ({ headers: swapped(headers, { from: to, to: from }), body: replacing(to, from) }),
      };
    },
    addressAllowed: (address) => rules().addresses.includes(address),
    refused: (refusal) => note({ type: 'refused', ...identity, ...refusal }),
    dispose: () => note({ type: 'disposed', ...identity }),
  };
}

const testPolicies = {
  open: async (identity) => engine(identity),
  refresh: async () => undefined,
  revoke: async () => undefined,
  redact: async (_sessionId, texts) => ({ texts, redactions: 0 }),
  close: async () => undefined,
};
/** The product's own policies, with values from a file in place of a vault. */
async function realPolicies({ databaseUrl, secretsFile, holdMs }) {
  const { Policies } = await built('policy/policies');
  const { createPool } = await import(new URL('db/pool.js', host.dist));
  const { LonghaulError } = await import(new URL('contracts/error-codes.js', host.dist));
  const secrets = {
    async resolve(id) {
      const value = JSON.parse(readFileSync(secretsFile, 'utf8'))[id];
      if (value === undefined) throw new LonghaulError('credential_unavailable', 'it cannot be had');
      return { value, version: 1, expiresAtMs: null };
    },
    invalidate() {},
    hold() {},
    forget() {},
    close: async () => undefined,
  };
  const pool = createPool({ databaseUrl, applicationName: 'test-broker', max: 5 });
  const { readServices } = await built('services/config');
  const services = readServices(host.env);
  const options = { packageHosts: ['packages.test'], internalTargets: [], services, holdMs };
  return new Policies({ pool, databaseUrl, logger: silent, registry: new Registry(), secrets, ...options });
}

const policies = host.policies === null ? testPolicies : await realPolicies(host.policies);
const known = () => JSON.parse(readFileSync(host.directoryFile, 'utf8'));
const directory = {
  list: async () => known(),
  find: async (id) => known().find((each) => each.sandboxId === id) ?? null,
};

process.on('uncaughtException', (error) => {
  note({ type: 'uncaught', message: error.stack });
  process.exit(1);
});
process.on('unhandledRejection', (error) => {
  note({ type: 'unhandled', message: error?.stack ?? String(error) });
  process.exit(1);
});
const broker = new Broker({ config, policies, directory, logger: silent, registry: new Registry() });
const control = createControl(broker, config.token, silent);
if (config.public !== null) await listenPublicly(config.public, broker.front);
await new Promise((resolve) => control.listen(config.port, '127.0.0.1', resolve));
await broker.reconcile();
process.stdout.write(`ready ${control.address().port}\n`);
