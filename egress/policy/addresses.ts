import { BlockList, isIP } from 'node:net';
import { hostMatches, isAddress, isCidr } from '../../contracts/hosts.ts';

/** Addresses of private networks that an environment opens: by network, by address, or whatever a host resolves to. */
export class OpenAddresses {
  readonly #networks = new BlockList();
  readonly #hosts: string[] = [];

  constructor(entries: readonly string[]) {
    for (const entry of entries) {
      if (isCidr(entry)) {
        const [network = '', bits = ''] = entry.split('/');
        this.#networks.addSubnet(network, Number(bits), network.includes(':') ? 'ipv6' : 'ipv4');
      } else if (isAddress(entry)) this.#networks.addAddress(entry, entry.includes(':') ? 'ipv6' : 'ipv4');
      else this.#hosts.push(entry);
    }
  }

  includes(address: string, host: string): boolean {
    if (this.#hosts.some((pattern) => hostMatches(pattern, host))) return true;
    const version = isIP(address);
    return version !== 0 && this.#networks.check(address, version === 6 ? 'ipv6' : 'ipv4');
  }
}
