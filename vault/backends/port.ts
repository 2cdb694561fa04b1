import { LonghaulError } from '../../contracts/error-codes.ts';

/** What is asked of a back end: a path within what the team may reach there. */
export interface BackendRef {
  teamId: string;
  path: string;
  /** null: the only field, or `value`. */
  field: string | null;
}

export interface BackendSecret {
  value: string;
  /** Of the back end; another one means another value. */
  version: string;
  /** When the value stops working by itself; null: not known. */
  expiresAtMs: number | null;
}

/**
 * Where values lie. A secret that is not there is `not_found`; a back end that is away or refuses us is
 * `credential_unavailable`. No error holds a value or the back end's own words.
 */
export interface VaultBackend {
  readonly name: string;
  get(ref: BackendRef): Promise<BackendSecret>;
  put?(ref: BackendRef, value: string): Promise<{ version: string }>;
  /** Paths of the team, of at most `limit` secrets. */
  list?(teamId: string, limit: number): Promise<string[]>;
  close(): Promise<void>;
}

export function notThere(backend: string, path: string): LonghaulError {
  return new LonghaulError('not_found', `${backend} has no secret ${path} for this team`);
}

export function away(backend: string, reason: string): LonghaulError {
  return new LonghaulError('credential_unavailable', `${backend}: ${reason}`);
}

/** The team's own part of a store: `{team}` in a template. A team whose name could lead elsewhere has none. */
export function teamPrefix(template: string, teamId: string): string {
  if (!/^(?!\.{1,2}$)[\w.@-]+$/.test(teamId)) {
    throw new LonghaulError('not_found', `team ${teamId} has no part of this vault: its name cannot be a path`);
  }
  return template.replaceAll('{team}', teamId);
}

/** One field of a secret that is an object. */
export function fieldOf(fields: Record<string, unknown>, ref: BackendRef): string | undefined {
  const names = Object.keys(fields);
  const name = ref.field ?? (names.length === 1 ? names[0] : 'value') ?? 'value';
  const value = Object.hasOwn(fields, name) ? fields[name] : undefined;
  return typeof value === 'string' ? value : undefined;
}

/** A version as a back end tells it: a number, or text. */
export function versionText(version: unknown): string {
  return typeof version === 'number' || typeof version === 'string' ? String(version) : '';
}
