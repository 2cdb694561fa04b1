import { canonicalHost, canonicalHostPattern } from '../../contracts/hosts.ts';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { LIMITS } from '../../contracts/limits.ts';
import type { CompileOptions, InternalTarget } from './compile.ts';
import { readServices, type ServiceAddresses } from '../services/config.ts';
import { PACKAGE_HOSTS } from './package-hosts.ts';

export interface PolicyConfig extends CompileOptions {
  services: ServiceAddresses;
  /** How long a request waits for a person. */
  holdMs: number;
}

/** What the operator says about the network of all sandboxes; a bad value is refused by name. */
export function readPolicyConfig(env: Record<string, string | undefined>): PolicyConfig {
  const hosts = list(env, 'LONGHAUL_EGRESS_PACKAGE_HOSTS');
  const hold = env['LONGHAUL_EGRESS_HOLD_MS'] ?? '';
  const holdMs = hold === '' ? LIMITS.egressHoldMs : Number(hold);
  if (!Number.isInteger(holdMs) || holdMs < 0 || holdMs > LIMITS.egressHoldMs) {
    throw new LonghaulError('setup_required', `LONGHAUL_EGRESS_HOLD_MS must be 0 to ${LIMITS.egressHoldMs}`);
  }
  return {
    packageHosts: hosts.length === 0 ? PACKAGE_HOSTS : hosts.map(packageHost),
    internalTargets: list(env, 'LONGHAUL_EGRESS_INTERNAL').map(internalTarget),
    services: readServices(env),
    holdMs,
  };
}

function list(env: Record<string, string | undefined>, name: string): string[] {
  return (env[name] ?? '').split(/[\s,]+/).filter((item) => item !== '');
}

function packageHost(text: string): string {
  const host = canonicalHostPattern(text);
  if (host !== undefined) return host;
  throw new LonghaulError('setup_required', 'LONGHAUL_EGRESS_PACKAGE_HOSTS must be host names');
}

function internalTarget(text: string): InternalTarget {
  const [, name = '', port = ''] = /^(.+):(\d{1,5})$/.exec(text) ?? [];
  const host = canonicalHost(name);
  if (host !== undefined && Number(port) <= 65_535) return { host, port: Number(port) };
  throw new LonghaulError('setup_required', 'LONGHAUL_EGRESS_INTERNAL must be host:port');
}
