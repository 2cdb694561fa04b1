import type { SessionCredential } from '../../contracts/credentials.ts';
import type { EnvironmentRepository } from '../../contracts/definitions.ts';
import { LonghaulError } from '../../contracts/error-codes.ts';

/** GitHub and most others take any name beside a token. */
const USER_NAME = 'x-access-token';

/**
 * Clones into a folder beside the target and moves it there when it is whole. Where there is a credential, git is told by a
 * helper in the repository's own configuration, so that later fetches and pushes use it too: what it hands out is the
 * session's placeholder, and only the egress broker knows what that stands for.
 */
const SCRIPT = `
set -eu
url=$1; dir=$2; branch=$3; commit=$4; helper=$5; origin=$6
command -v git >/dev/null 2>&1 || { echo 'git is not there' >&2; exit 78; }
if [ -d "$dir/.git" ]; then echo "$dir is there already"; exit 0; fi
mkdir -p -- "$(dirname -- "$dir")"
new=$dir.longhaul-clone
rm -rf -- "$new"
export GIT_TERMINAL_PROMPT=0
with() { if [ -n "$helper" ]; then git -c credential.helper= -c "credential.helper=$helper" "$@"; else git -c credential.helper= "$@"; fi; }
if [ -n "$commit" ]; then
  git init -q -- "$new"
  git -C "$new" remote add origin "$url"
  with -C "$new" fetch -q origin "$commit" 2>/dev/null || with -C "$new" fetch -q origin
  git -C "$new" checkout -q --detach "$commit"
elif [ -n "$branch" ]; then with clone -q --branch "$branch" -- "$url" "$new"
else with clone -q -- "$url" "$new"
fi
if [ -n "$helper" ]; then git -C "$new" config "credential.$origin.helper" "$helper"; fi
if [ -d "$dir" ]; then rmdir -- "$dir"; fi
mv -T -- "$new" "$dir"
git -C "$dir" log -1 --format='%h %s' || true
`;

/** A command that clones one repository. */
export function cloneCommand(repository: EnvironmentRepository, credential: SessionCredential | undefined): string[] {
  const { url, mount_path: dir, branch, commit } = repository;
  const helper = credential === undefined ? '' : helperOf(credential);
  return ['sh', '-c', SCRIPT, 'clone', url, dir, branch ?? '', commit ?? '', helper, new URL(url).origin];
}

/** Placeholders are letters, digits and a few signs; anything else would be read by the shell. */
function helperOf({ placeholder, username }: SessionCredential): string {
  const user = username ?? USER_NAME;
  for (const text of [placeholder, user]) {
    if (!/^[\w.@+=~/-]+$/.test(text))
      throw new LonghaulError('sandbox_invalid', 'the credential cannot be used by git');
  }
  return `!f() { if [ "$1" = get ]; then echo username=${user}; echo password=${placeholder}; fi; }; f`;
}

/**
 * The credential a repository names, by id or name; without one, the git credential of the session that is for its host.
 * Throws when the named one is not among the session's.
 */
export function credentialFor(
  repository: EnvironmentRepository,
  credentials: readonly SessionCredential[],
): SessionCredential | undefined {
  const { credential: wanted, url } = repository;
  const { hostname } = new URL(url);
  if (wanted === null) {
    return credentials.find(({ kind, hosts }) => kind === 'git' && hosts.some((host) => matches(host, hostname)));
  }
  const found = credentials.find(({ credentialId, name, env }) => [credentialId, name, env].includes(wanted));
  if (found !== undefined) return found;
  const why = `no vault of the session holds the credential ${wanted} for requests; a key for ssh is none: git needs a token`;
  throw new LonghaulError('sandbox_invalid', why);
}

function matches(pattern: string, hostname: string): boolean {
  return pattern.startsWith('*.') ? hostname.endsWith(pattern.slice(1)) : pattern === hostname;
}
