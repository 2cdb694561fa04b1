import { isAddress, isCidr } from '../../contracts/hosts.ts';
import type { EgressProgram } from '../../db/queries/egress-policies.ts';
import { OpenAddresses } from './addresses.ts';
import type { Asked, Rule, Verdict } from './rules.ts';
import { allowHost, RuleList } from './rules.ts';

/**
 * What an E2B program said of its sandbox: names, addresses and networks that are allowed go before addresses and networks
 * that are denied, and both before the internet as a whole.
 */
export class ProgramRules {
  readonly isOpen: boolean;
  readonly #names: RuleList;
  readonly #allowed: OpenAddresses;
  readonly #denied: OpenAddresses;

  constructor({ internet, allow, deny }: EgressProgram['egress']) {
    this.isOpen = internet;
    const names = allow.filter((entry) => !isNetwork(entry));
    this.#names = new RuleList(names.map((host): Rule => allowHost(host, `allowOut: ${host}`)));
    this.#allowed = new OpenAddresses(allow.filter(isNetwork));
    this.#denied = new OpenAddresses(deny.filter(isNetwork));
  }

  decide({ host, port }: Pick<Asked, 'host' | 'port'>): Verdict {
    const named = this.#names.decideHost(host, port);
    if (named.action !== 'unmatched' || !isAddress(host)) return named;
    if (this.#allowed.includes(host, host)) return { action: 'allow', rule: allowHost(host, 'allowOut') };
    if (!this.#denied.includes(host, host)) return named;
    return { action: 'deny', rule: { ...allowHost(host, 'denyOut'), action: 'deny' } };
  }

  /** Of an address a name resolved to. */
  isDenied(address: string, host: string): boolean {
    if (!this.#denied.includes(address, '') || this.#allowed.includes(address, '')) return false;
    return this.#names.decideHost(host, 0).action !== 'allow';
  }
}

const isNetwork = (entry: string): boolean => isCidr(entry) || isAddress(entry);
