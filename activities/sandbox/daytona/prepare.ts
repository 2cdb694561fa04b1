import { readFile } from 'node:fs/promises';
import type { Sandbox } from '@daytonaio/sdk';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import type { SandboxSpec } from '../port.ts';
import { unsupported } from '../unsupported.ts';
import { runInside } from './inside.ts';

const BUNDLE_BYTES = 16 * 1024 * 1024;

/** May run any number of times. Images whose user is not root have sudo, as the vendor's own do. */
const PREPARE = `
as_root() { "$@" 2>/dev/null || sudo -n "$@"; }
for folder in /workspace; do
  [ -d "$folder" ] || as_root mkdir -p "$folder" || exit 1
  [ -w "$folder" ] || sudo -n chown "$(id -u):$(id -g)" "$folder" || exit 1
done
[ "$1" = trust ] || exit 0
mkdir -p /tmp/.longhaul-stage
bundle=/tmp/.longhaul-stage/trust.$$
cat > "$bundle" && as_root mkdir -p /etc/ssl/certs && as_root cp "$bundle" /etc/ssl/certs/ca-certificates.crt
code=$?
rm -f "$bundle"
[ "$code" = 0 ] || exit 2
`;

/** What every sandbox has before its first command: a folder to work in, and whom to trust. */
export async function prepare(sandbox: Sandbox, spec: SandboxSpec, signal: AbortSignal): Promise<void> {
  const bundle = spec.trustBundleFile === undefined ? undefined : await readFile(spec.trustBundleFile);
  if (bundle !== undefined && bundle.length > BUNDLE_BYTES) {
    throw new LonghaulError('sandbox_invalid', 'is larger than 16 MiB', { field: 'trustBundleFile' });
  }
  const argv = ['sh', '-c', PREPARE, 'prepare', bundle === undefined ? '' : 'trust'];
  const { code, stderr } = await runInside(sandbox, argv, {
    ...(bundle === undefined ? {} : { input: bundle }),
    maxBytes: 4_096,
    signal,
  });
  if (code === 0) return;
  const reason = stderr.toString().trim().slice(-300);
  if (code === 2) throw unsupported('daytona', `be given authorities to trust: ${reason}`);
  throw new LonghaulError('sandbox_invalid', `the image cannot be used, its user may not prepare it: ${reason}`);
}
