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
if [ -n "$4" ] && [ "$(wc -c < "$temporary")" -ne "$4" ]; then echo 'broke off' >&2; exit 1; fi
if [ -n "$3" ] && [ "$(sha256sum < "$target" | cut -c 1-64)" != "$3" ]; then echo 'changed meanwhile' >&2; exit 1; fi
mv -fT -- "$temporary" "$target"
`;

/**
 * A command that replaces a file by its standard input in one step, following a link, and makes the folders above it.
 * `name`: of the temporary file, so that the next try of the same write replaces what a crash left; one of chance without
 * it. `overSha256`: only while the file still is this. `sizeBytes`: only when the input had as many: one that broke off has an
 * end too.
 */
export function writeCommand(
  path: string,
  options: { name?: string; overSha256?: string; sizeBytes?: number } = {},
): string[] {
  const sizeBytes = options.sizeBytes === undefined ? '' : String(options.sizeBytes);
  return ['sh', '-c', SCRIPT, 'write', path, options.name ?? '', options.overSha256 ?? '', sizeBytes];
}

/** Reads frames: a line with a size, then as many bytes. Without the line `end` all was for nothing. */
const STREAM_SCRIPT = `
set -e
mkdir -p -- "$(dirname -- "$1")"
target=$1
if [ -L "$target" ]; then target=$(readlink -m -- "$target"); fi
if [ -d "$target" ]; then echo 'is a folder' >&2; exit 1; fi
temporary=$(mktemp -- "$target.XXXXXXXX")
trap 'rm -f -- "$temporary"' EXIT
over=
while read -r size; do
  if [ "$size" = end ]; then over=1; break; fi
  head -c "$size" >&3
done 3> "$temporary"
if [ -z "$over" ]; then echo 'broke off' >&2; exit 1; fi
chmod -- "$(stat -c %a -- "$target" 2>/dev/null || echo 644)" "$temporary"
mv -fT -- "$temporary" "$target"
`;

/** As `writeCommand`, for an input of unknown size: whoever dies while writing leaves the old content. See `frames`. */
export function writeStreamCommand(path: string): string[] {
  return ['sh', '-c', STREAM_SCRIPT, 'write', path];
}

/** A process is started for each frame, so small pieces are put together. */
const FRAME_BYTES = 4 * 1024 * 1024;

/** The input of `writeStreamCommand`. `onBytes` hears the size of each piece first, and may throw. */
export async function* frames(
  content: AsyncIterable<Uint8Array>,
  onBytes: (sizeBytes: number) => void,
): AsyncIterable<Uint8Array> {
  let held: Uint8Array[] = [];
  let sizeBytes = 0;
  for await (const piece of content) {
    onBytes(piece.length);
    if (piece.length === 0) continue;
    held.push(piece);
    sizeBytes += piece.length;
    if (sizeBytes < FRAME_BYTES) continue;
    yield Buffer.from(`${sizeBytes}\n`);
    yield* held;
    held = [];
    sizeBytes = 0;
  }
  if (sizeBytes > 0) {
    yield Buffer.from(`${sizeBytes}\n`);
    yield* held;
  }
  yield Buffer.from('end\n');
}
