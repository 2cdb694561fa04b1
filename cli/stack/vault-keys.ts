import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { writePrivateFile, type HomePaths } from './home.ts';
import { splitProviderKeys } from './provider-keys.ts';

/** Opens every secret of the vault, under names `LONGHAUL_VAULT_KEY…`; a path to a file is none. */
const MASTER_KEYS = /^LONGHAUL_VAULT_KEY(?!.*_FILE$)/;
/** What only the broker needs: it alone speaks to external vaults and proxies. */
const BROKER_ONLY = /^(VAULT_URL|VAULT_PROXY_TOKEN|LONGHAUL_EGRESS_TOKEN|LONGHAUL_VAULT_.*(TOKEN|SECRET|SECRET_ID))$/;

interface Split {
  /** For every process of ours. */
  shared: NodeJS.ProcessEnv;
  /** For the api, by a pipe: providers' keys for its gateway, the master key to seal with. */
  api: Record<string, string>;
  /** For the egress broker, by a pipe. */
  egress: Record<string, string>;
}

/** Parts an environment by who may know what. Sandboxes are started by the worker, which gets no key at all. */
export function splitKeys(env: NodeJS.ProcessEnv, paths: HomePaths): Split {
  const { shared: rest, keys } = splitProviderKeys(env);
  const split: Split = { shared: {}, api: { ...keys }, egress: {} };
  // Variables that credentials refer to (`vault://env/NAME`): `NAME@team`, with commas between them.
  const referred = new Set((env['LONGHAUL_VAULT_ENV'] ?? '').split(',').map((entry) => entry.trim().split('@')[0]));
  for (const [name, value] of Object.entries(rest)) {
    if (value === undefined) continue;
    if (MASTER_KEYS.test(name)) {
      split.api[name] = value;
      split.egress[name] = value;
    } else if (BROKER_ONLY.test(name) || referred.has(name)) split.egress[name] = value;
    else split.shared[name] = value;
  }
  if ((env['LONGHAUL_VAULT_KEY'] ?? '') === '' && (env['LONGHAUL_VAULT_KEY_FILE'] ?? '') === '') {
    // The file may hold several, the newest first, while the master key is changed.
    const key = kept(paths.vaultKey, () => randomBytes(32).toString('base64'));
    split.api['LONGHAUL_VAULT_KEY'] = key;
    split.egress['LONGHAUL_VAULT_KEY'] = key;
  }
  const token = env['LONGHAUL_EGRESS_TOKEN'];
  if (token !== undefined && token !== '') writePrivateFile(paths.egressToken, `${token}\n`);
  else kept(paths.egressToken, () => randomBytes(32).toString('base64url'));
  return split;
}

/** The secret in a file of the home; made on the first start. Only the supervisor, which holds the lock, makes it. */
function kept(file: string, make: () => string): string {
  const old = existsSync(file) ? readFileSync(file, 'utf8').trim() : '';
  if (old !== '') return old;
  const secret = make();
  writePrivateFile(file, `${secret}\n`);
  return secret;
}
