import { readFile } from 'node:fs/promises';
import type { Sandbox } from 'e2b';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import type { SandboxRef, SandboxSpec } from '../port.ts';
import { unsupported } from '../unsupported.ts';
import { filterOf, metadataOf } from './metadata.ts';
import { networkOptions } from './network.ts';
import { connection, loadSdk, type E2bOptions } from './sdk.ts';

const CALL_MS = 60_000;
const TRUST_FILE = '/etc/ssl/certs/ca-certificates.crt';
/** Commands that ran when a snapshot was taken run in what is made from it, too: theirs is the other sandbox. */
const END_COPIES = `for entry in $(grep -lsF LONGHAUL_EXEC= /proc/[0-9]*/environ); do
pid=\${entry#/proc/}; kill -KILL "\${pid%/environ}" 2>/dev/null; done; mkdir -p /workspace`;

export interface Creation {
  options: E2bOptions;
  spec: SandboxSpec;
  key: string;
  signal: AbortSignal;
}

/**
 * E2B knows no key of a creation, so its metadata holds one: what an earlier try made is looked for first, and once more
 * afterwards. Of two that were made at the same time the older counts, for everybody.
 */
export async function createOnce(creation: Creation): Promise<SandboxRef> {
  const { options, spec, signal } = creation;
  const network = networkOptions(spec.network);
  const { Sandbox } = await loadSdk(options);
  const known = await oldest(creation);
  let id = known;
  if (id === undefined) {
    const made = await Sandbox.create(spec.snapshot?.id ?? spec.image ?? options.template ?? 'base', {
      ...connection(options, signal),
      metadata: metadataOf(spec, creation.key),
      timeoutMs: spec.ttlMs,
      // A lease that runs out while no worker is there keeps files and commands; the reaper decides later.
      lifecycle: { onTimeout: { action: 'pause', keepMemory: true } },
      allowInternetAccess: network.allowInternetAccess,
      ...(network.network === undefined ? {} : { network: network.network }),
    });
    id = (await oldest(creation)) ?? made.sandboxId;
    if (id !== made.sandboxId) await Sandbox.kill(made.sandboxId, connection(options));
  }
  const sandbox = await Sandbox.connect(id, { ...connection(options, signal), timeoutMs: spec.ttlMs });
  await prepare(sandbox, creation, known === undefined);
  return { provider: 'e2b', id, meta: {} };
}

async function oldest({ options, spec, key, signal }: Creation): Promise<string | undefined> {
  const { Sandbox } = await loadSdk(options);
  const query = { metadata: filterOf(spec.owner, key), state: ['running' as const, 'paused' as const] };
  const pages = Sandbox.list({ ...connection(options), query, limit: 100 });
  const found: { sandboxId: string; startedAt: Date }[] = [];
  while (pages.hasNext) {
    signal.throwIfAborted();
    found.push(...(await pages.nextItems()));
  }
  const [first] = found.toSorted(
    (a, b) => a.startedAt.getTime() - b.startedAt.getTime() || (a.sandboxId < b.sandboxId ? -1 : 1),
  );
  return first?.sandboxId;
}

/** What a new sandbox needs before its first command. Doing it again changes nothing. */
async function prepare(sandbox: Sandbox, { options, spec }: Creation, isNew: boolean): Promise<void> {
  if (isNew && spec.snapshot !== undefined) {
    await sandbox.commands.run(END_COPIES, { user: 'root', cwd: '/', timeoutMs: CALL_MS });
  }
  if (spec.trustBundleFile === undefined) return;
  const bundle = await readFile(spec.trustBundleFile);
  try {
    await sandbox.files.write(TRUST_FILE, new Blob([bundle]), { user: 'root' });
  } catch (error) {
    if (!(error instanceof Error) || error.name === 'TimeoutError') throw error;
    await sandbox.kill(connection(options));
    const refused = unsupported('e2b', 'be given authorities to trust with this template');
    throw new LonghaulError(refused.code, refused.message, { cause: error });
  }
}
