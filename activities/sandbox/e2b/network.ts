import type { SandboxNetworkOpts, SandboxNetworkUpdate } from 'e2b';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import { unsupported } from '../unsupported.ts';
import type { SandboxNetwork } from '../port.ts';

/** E2B lets what is allowed win over what is denied, so all is denied first. */
const EVERYTHING = '0.0.0.0/0';

/** What E2B's filter is told; for creation and for a change, which name the same thing differently. */
export function networkOptions(
  network: SandboxNetwork | undefined,
): { allowInternetAccess: boolean; network?: SandboxNetworkOpts } & { update: SandboxNetworkUpdate } {
  const wanted = network ?? { type: 'none' as const };
  switch (wanted.type) {
    case 'none':
      return { allowInternetAccess: false, update: { allowInternetAccess: false } };
    case 'open':
      return { allowInternetAccess: true, update: { allowInternetAccess: true } };
    case 'native':
      return only(wanted.allowedHosts);
    case 'broker':
      if (wanted.proxy === null) throw unsupported('e2b', 'have a listener of the broker in their network');
      return only([wanted.proxy.host]);
    default: {
      const never: never = wanted;
      throw new LonghaulError('sandbox_invalid', `unknown network ${JSON.stringify(never)}`);
    }
  }
}

function only(hosts: string[]): ReturnType<typeof networkOptions> {
  if (hosts.length === 0) return networkOptions({ type: 'none' });
  const rules = { allowOut: hosts, denyOut: [EVERYTHING] };
  return { allowInternetAccess: true, network: rules, update: rules };
}
