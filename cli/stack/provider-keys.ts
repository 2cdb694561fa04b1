import type { ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';
import type { Writable } from 'node:stream';
import { credentialNamesIn, credentialRules } from '../../contracts/provider-credentials.ts';

/** The descriptor a child reads them from. */
export const KEYS_FD = 4;

interface Split {
  /** For every process of ours. */
  shared: NodeJS.ProcessEnv;
  /** For the one that holds the gateway. */
  keys: Record<string, string>;
}

/** Parts the providers' keys from the rest of an environment: those we know, those that are listed, those in the gateway's file. */
export function splitProviderKeys(env: NodeJS.ProcessEnv): Split {
  const names = new Set([
    ...credentialRules(env, env['LONGHAUL_GATEWAY_CREDENTIALS']).map(({ name }) => name),
    ...credentialNamesIn(textOf(env['LONGHAUL_GATEWAY_CONFIG'])),
  ]);
  const shared: NodeJS.ProcessEnv = {};
  const keys: Record<string, string> = {};
  for (const [name, value] of Object.entries(env)) {
    if (value === undefined) continue;
    if (names.has(name)) keys[name] = value;
    else shared[name] = value;
  }
  return { shared, keys };
}

/** Hands the keys to a child that was started with a pipe as its descriptor `KEYS_FD`. */
export function handOver(child: ChildProcess, keys: Readonly<Record<string, string>>): void {
  const pipe = child.stdio[KEYS_FD] as Writable | null | undefined;
  // A child that ends before it has read them has nothing to complain of here.
  pipe?.on('error', () => undefined);
  pipe?.end(JSON.stringify(keys));
}

/** A file that cannot be read names no key; the gateway reports it. */
function textOf(file: string | undefined): string {
  if (file === undefined || file === '') return '';
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}
