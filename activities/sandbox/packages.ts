import type { CloudEnvironment, PackageManager } from '../../contracts/definitions.ts';
import { PACKAGE_MANAGERS } from '../../contracts/definitions.ts';

/** Exit code of the script when this sandbox cannot do it; its last line says why. */
export const UNAVAILABLE_EXIT = 78;

/**
 * Installs with one package manager: for everybody where we may write to the system, else for the user below /workspace.
 * Needs a POSIX shell; `$1` is the manager, the rest are packages.
 */
const SCRIPT = `
set -eu
manager=$1; shift
has() { command -v "$1" >/dev/null 2>&1; }
cannot() { echo "$1" >&2; exit ${UNAVAILABLE_EXIT}; }
may= ; sudo=
if [ "$(id -u)" = 0 ] && [ -w /usr/bin ]; then may=yes
elif has sudo && sudo -n true 2>/dev/null; then may=yes; sudo='sudo -n -E'; fi
user=\${HOME:-/workspace}/.local
mkdir -p "$user/bin" 2>/dev/null || true
case $manager in
  apt)
    if [ -n "$may" ] && has apt-get; then
      $sudo apt-get update -q
      DEBIAN_FRONTEND=noninteractive $sudo apt-get install -q -y --no-install-recommends -- "$@"
    else
      missing=
      for package; do
        name=\${package%%=*}
        has "$name" || dpkg-query -W -f '\${Status}' "$name" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $package"
      done
      [ -z "$missing" ] || cannot "apt packages need root, which this sandbox has not; not installed:$missing"
    fi ;;
  npm)
    has npm || cannot 'npm is not there'
    if [ -n "$may" ]; then $sudo npm install -g --no-fund --no-audit -- "$@"
    else npm install -g --prefix "$user" --no-fund --no-audit -- "$@"; fi ;;
  pip)
    python3 -m pip --version >/dev/null 2>&1 || cannot 'pip is not there'
    export PIP_BREAK_SYSTEM_PACKAGES=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
    if [ -n "$may" ]; then $sudo python3 -m pip install --no-input -- "$@"
    else python3 -m pip install --no-input --user -- "$@"; fi ;;
  gem)
    has gem || cannot 'gem is not there'
    if [ -n "$may" ]; then $sudo gem install --no-document -- "$@"
    else gem install --no-document --user-install --bindir "$user/bin" -- "$@"; fi ;;
  cargo)
    has cargo || cannot 'cargo is not there'
    if [ -n "$may" ] && [ -z "$sudo" ]; then cargo install --root /usr/local -- "$@"
    else cargo install --root "$user" -- "$@"; fi ;;
  go)
    has go || cannot 'go is not there'
    if [ -n "$may" ] && [ -z "$sudo" ]; then export GOBIN=/usr/local/bin; else export GOBIN="$user/bin"; fi
    for package; do case $package in *@*) ;; *) package=$package@latest ;; esac; go install "$package"; done ;;
esac
`;

/** A command that installs; the packages are arguments, never a part of the script. */
export function installCommand(manager: PackageManager, packages: readonly string[]): string[] {
  return ['sh', '-c', SCRIPT, 'install', manager, ...packages];
}

/** What an environment wants installed, system packages first: others may need them. */
export function wantedPackages({ packages }: CloudEnvironment): { manager: PackageManager; packages: string[] }[] {
  return PACKAGE_MANAGERS.flatMap((manager) =>
    packages[manager].length === 0 ? [] : [{ manager, packages: packages[manager] }],
  );
}

export function usesPackages(environment: CloudEnvironment): boolean {
  return wantedPackages(environment).length > 0;
}
