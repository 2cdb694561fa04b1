import { posix } from 'node:path';
import { RpcError } from './connect.ts';

/** E2B's sandboxes have their users' files here; in ours it leads to /workspace. */
export const HOME = '/home/user';

const USERS = new Set(['user', 'root']);

/** The user a request names by Basic authentication or in its query; both are the one there is. */
export function requireUser(name: string | undefined): string {
  const user = name === undefined || name === '' ? 'user' : name;
  if (!USERS.has(user))
    throw new RpcError('unauthenticated', `there is no user '${user.slice(0, 64)}' in this sandbox`);
  return user;
}

/** `user:` in the header; SDKs leave the password empty. */
export function userOf(authorization: string | undefined): string {
  const basic = /^Basic +([A-Za-z0-9+/=]{1,512})$/i.exec(authorization ?? '')?.[1];
  return requireUser(basic === undefined ? undefined : Buffer.from(basic, 'base64').toString().split(':')[0]);
}

/** As E2B reads paths: relative ones and `~` from the home. */
export function resolvePath(path: unknown): string {
  if (path !== undefined && typeof path !== 'string') throw new RpcError('invalid_argument', 'path: must be a string');
  const text = path ?? '';
  if (text.includes('\0') || text.length > 4_096) throw new RpcError('invalid_argument', 'path: is not valid');
  const expanded = text === '~' || text.startsWith('~/') ? `${HOME}${text.slice(1)}` : text;
  const resolved = posix.resolve(HOME, expanded);
  return resolved;
}
