import { isHostAllowed, type CredentialRule } from '../contracts/provider-credentials.ts';

/** The providers' keys. They are nowhere else: no method gives more than one, and printing it shows none. */
export class Credentials {
  readonly #environment: ReadonlyMap<string, string>;
  readonly #rules: readonly CredentialRule[];

  constructor(environment: ReadonlyMap<string, string>, rules: readonly CredentialRule[]) {
    this.#environment = environment;
    this.#rules = rules;
  }

  /** The value of a variable; undefined when it is not set. */
  get(name: string): string | undefined {
    const value = this.#environment.get(name);
    return value === '' ? undefined : value;
  }

  /** The value behind `env:NAME`. */
  resolve(ref: string | undefined): string | undefined {
    return ref === undefined ? undefined : this.get(ref.replace(/^env:/, ''));
  }

  /** Why a route made over the API may not send this key there; undefined when it may. */
  whyNot(name: string, url: string | undefined): string | undefined {
    const rule = this.#rules.find((known) => known.name === name);
    if (rule === undefined) return `the variable ${name} is not among those that routes may name`;
    if (url === undefined || isHostAllowed(url, rule.hosts)) return undefined;
    return `the key in ${name} may not be sent to ${new URL(url).host}`;
  }
}
