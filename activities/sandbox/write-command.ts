/** Needs a POSIX shell and coreutils only, so that every adapter can run it. */
const SCRIPT = `
set -e
mkdir -p -- "$(dirname -- "$1")"
target=$1
if [ -L "$target" ]; then target=$(readlink -m -- "$target"); fi
if [ -d "$target" ]; then echo 'is a folder' >&2; exit 1; fi
if [ -n "$2" ]; then temporary=$target.$2; rm -rf -- "$temporary"; else temporary=$(mktemp -- "$target.XXXXXXXX"); fi
trap 'rm -f -- "$temporary"' EXIT
cat > "$temporary"
chmod -- "$(stat -c %a -- "$target" 2>/dev/null || echo 644)" "$temporary"
if [ -n "$3" ] && [ "$(sha256sum < "$target" | cut -c 1-64)" != "$3" ]; then echo 'changed meanwhile' >&2; exit 1; fi
mv -fT -- "$temporary" "$target"
`;

/**
 * A command that replaces a file by its standard input in one step, following a link, and makes the folders above it.
 * `name`: of the temporary file, so that the next try of the same write replaces what a crash left; one of chance without
 * it. `overSha256`: only while the file still is this.
 */
export function writeCommand(path: string, options: { name?: string; overSha256?: string } = {}): string[] {
  return ['sh', '-c', SCRIPT, 'write', path, options.name ?? '', options.overSha256 ?? ''];
}
