import { readFileSync } from 'node:fs';
import { LonghaulError } from '../contracts/error-codes.ts';
import { KeyRing } from './key-ring.ts';

type Environment = Record<string, string | undefined>;

/**
 * The master keys of a process that seals or opens: `LONGHAUL_VAULT_KEY`, or the file `LONGHAUL_VAULT_KEY_FILE`. There is
 * no other way to start it, and no key that everybody has.
 */
export function readVaultKeys(env: Environment): KeyRing {
  const given = text(env, 'LONGHAUL_VAULT_KEY');
  const file = text(env, 'LONGHAUL_VAULT_KEY_FILE');
  if (given !== null) return KeyRing.parse(given);
  if (file !== null) return KeyRing.parse(readKeyFile(file));
  const how = 'set LONGHAUL_VAULT_KEY_FILE or LONGHAUL_VAULT_KEY; `openssl rand -base64 32` makes one';
  throw new LonghaulError('setup_required', `there is no master key for the vault: ${how}`);
}

function readKeyFile(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw new LonghaulError('setup_required', `LONGHAUL_VAULT_KEY_FILE: ${file} cannot be read`, { cause: error });
  }
}

function text(env: Environment, name: string): string | null {
  const value = env[name]?.trim();
  return value === undefined || value === '' ? null : value;
}
