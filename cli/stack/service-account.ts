import { spawnSync } from 'node:child_process';
import { statSync } from 'node:fs';
import path from 'node:path';
import { LonghaulError } from '../../contracts/error-codes.ts';

const SERVICE_USER = 'longhaul-postgres';

interface Account {
  uid: number;
  gid: number;
}

function accountOf(name: string): Account | null {
  const result = spawnSync('id', ['-u', name], { encoding: 'utf8' });
  if (result.status !== 0) return null;
  const group = spawnSync('id', ['-g', name], { encoding: 'utf8' });
  return { uid: Number(result.stdout), gid: Number(group.stdout) };
}

/** Postgres refuses to run as root, so root runs it as a user of its own; null when we are not root. */
export function serviceAccount(): Account | null {
  if (process.getuid?.() !== 0) return null;
  const known = accountOf(SERVICE_USER);
  if (known !== null) return known;
  spawnSync('useradd', ['--system', '--no-create-home', '--user-group', '--shell', '/usr/sbin/nologin', SERVICE_USER]);
  const account = accountOf(SERVICE_USER) ?? accountOf('postgres');
  if (account === null) {
    throw new LonghaulError(
      'setup_required',
      `Postgres refuses to run as root and the user ${SERVICE_USER} could not be made: run as another user, or set DATABASE_URL`,
    );
  }
  return account;
}

/** True when everyone may walk down to `target`. */
function isReachableByAll(target: string): boolean {
  for (let folder = path.resolve(target); ; folder = path.dirname(folder)) {
    if ((statSync(folder).mode & 0o001) === 0) return false;
    if (folder === path.dirname(folder)) return true;
  }
}

interface RunAs {
  command: string;
  args: string[];
  options: { uid?: number; gid?: number };
}

/**
 * How to run a Postgres binary from here. The service user often cannot walk into root's folders (a home of mode 0700, a
 * checkout under /root): then it keeps the one capability for that instead of having its parents' modes changed.
 */
export function runAs(binary: string, args: string[], folders: string[], dieWithParent: boolean): RunAs {
  const account = serviceAccount();
  const wrap: string[] = [];
  if (account !== null && !folders.every(isReachableByAll)) {
    wrap.push(`--reuid=${account.uid}`, `--regid=${account.gid}`, '--clear-groups');
    wrap.push('--inh-caps=+dac_override', '--ambient-caps=+dac_override');
  }
  if (dieWithParent && process.platform === 'linux') wrap.push('--pdeathsig=KILL');
  if (wrap.length === 0) return { command: binary, args, options: account ?? {} };
  const plainIdentity = account !== null && !wrap.some((flag) => flag.startsWith('--reuid'));
  if (plainIdentity) wrap.unshift(`--reuid=${account.uid}`, `--regid=${account.gid}`, '--clear-groups');
  return { command: 'setpriv', args: [...wrap, binary, ...args], options: {} };
}
