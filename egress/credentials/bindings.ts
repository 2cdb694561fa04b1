import type { InjectionLocation, SessionCredential } from '../../contracts/credentials.ts';
import { hostMatches } from '../../contracts/hosts.ts';
import { canonicalPath, prefixMatches } from '../policy/paths.ts';

/** Where a request goes, as far as the rules of credentials look at it. */
export interface Destination {
  host: string;
  method: string;
  /** As sent. */
  path: string;
  /** Encrypted, or to a host that the environment opened by name. */
  isConfidential: boolean;
}

/** Why a placeholder may not be used where it stands. */
export type Misfit = 'host' | 'method' | 'path' | 'location' | 'tls' | 'revoked';

/** Undefined: it may. */
export function misfitOf(
  credential: SessionCredential,
  to: Destination,
  location: InjectionLocation,
  header: string | null,
): Misfit | undefined {
  if (credential.revokedAt !== null) return 'revoked';
  const misfit = destinationMisfit(credential, to);
  if (misfit !== undefined) return misfit;
  if (!credential.locations.includes(location)) return 'location';
  const isHeld = header === null || credential.headerName === null || credential.headerName.toLowerCase() === header;
  // Basic stands in the authorization header by its nature.
  return isHeld || location === 'basic' ? undefined : 'location';
}

/** The same without the place in the request. */
export function destinationMisfit(credential: SessionCredential, to: Destination): Misfit | undefined {
  if (!isBoundTo(credential, to.host)) return 'host';
  if (
    credential.methods !== null &&
    !credential.methods.some((method) => method.toUpperCase() === to.method.toUpperCase())
  ) {
    return 'method';
  }
  if (credential.paths !== null) {
    const path = canonicalPath(to.path);
    if (path === undefined || !credential.paths.some((pattern) => prefixMatches(pattern, path))) return 'path';
  }
  return to.isConfidential ? undefined : 'tls';
}

/** True when the host may get the value at all. */
export function isBoundTo(credential: SessionCredential, host: string): boolean {
  return credential.unrestricted || credential.hosts.some((pattern) => hostMatches(pattern, host));
}

/** What to tell whoever reads the refusal inside the sandbox. */
export function explain(credential: SessionCredential, misfit: Misfit, to: Destination): string {
  const name = `the placeholder of credential ${credential.name}`;
  switch (misfit) {
    case 'host':
      return `${name} may not be sent to ${to.host}; it is for ${credential.hosts.join(', ') || 'no host'}`;
    case 'method':
      return `${name} may not be used with ${to.method}; it is for ${(credential.methods ?? []).join(', ')}`;
    case 'path':
      return `${name} may not be used for this path; it is for ${(credential.paths ?? []).join(', ')}`;
    case 'location':
      return `${name} may not stand in this part of a request; it may in: ${placesOf(credential)}`;
    case 'tls':
      return `${name} is put in on encrypted connections only; use https`;
    case 'revoked':
      return `${name} does not work any more: the credential was revoked or the session ended`;
  }
}

function placesOf(credential: SessionCredential): string {
  return credential.locations
    .map((place) => (place === 'header' && credential.headerName !== null ? `header ${credential.headerName}` : place))
    .join(', ');
}
