import { redact } from '../telemetry/redact.ts';

const SECRET_NAME =
  /(?:^|_)(?:token|secret|password|passwd|passphrase|credentials?|api_?key|access_?key|private_?key|auth)$/i;
const MIN_CHARS = 8;
/** Base64, hexadecimal and the like: long, without spaces, letters and digits mixed. */
const RANDOM_LOOKING = /^(?=[^\s]*\d)(?=[^\s]*[A-Za-z])[A-Za-z0-9+/=_~.-]{32,}$/;
/** Things of that shape that are none: paths, versions, hashes of commits and images. */
const HARMLESS = /^(?:[0-9a-f]{40}|sha256:[0-9a-f]{64}|[\w.-]*\/[\w./-]*|v?\d+(?:\.\d+)+[\w.-]*|https?:\/\/[^@]*)$/;

/** True when a variable meant to be public looks like a secret, by its name or by its value. */
export function looksSecret(name: string, value: string): boolean {
  if (value.length < MIN_CHARS) return false;
  if (redact(value) !== value) return true;
  if (SECRET_NAME.test(name)) return !HARMLESS.test(value);
  return RANDOM_LOOKING.test(value) && !HARMLESS.test(value);
}
