import { randomBytes } from 'node:crypto';
import type { PlaceholderAlphabet, PlaceholderShape } from '../contracts/credentials.ts';

interface Known {
  prefix: string;
  alphabet: PlaceholderAlphabet;
}

/** Beginnings by which vendors, their clients and secret scanners tell tokens; public knowledge, never a part of a secret. */
const KNOWN: readonly Known[] = [
  { prefix: 'github_pat_', alphabet: 'alnum' },
  ...['ghp_', 'gho_', 'ghu_', 'ghs_', 'ghr_'].map((prefix) => ({ prefix, alphabet: 'alnum' as const })),
  ...['glpat-', 'glptt-', 'gldt-', 'glrt-'].map((prefix) => ({ prefix, alphabet: 'base64url' as const })),
  ...['sk-ant-api03-', 'sk-ant-oat01-', 'sk-ant-', 'sk-proj-', 'sk-or-v1-', 'sk-'].map((prefix) => ({
    prefix,
    alphabet: 'base64url' as const,
  })),
  ...['xoxb-', 'xoxp-', 'xoxa-', 'xoxr-', 'xapp-'].map((prefix) => ({ prefix, alphabet: 'alnum' as const })),
  ...['AKIA', 'ASIA'].map((prefix) => ({ prefix, alphabet: 'upper' as const })),
  ...['sk_live_', 'sk_test_', 'rk_live_', 'rk_test_', 'pk_live_', 'whsec_'].map((prefix) => ({
    prefix,
    alphabet: 'alnum' as const,
  })),
  ...['AIza', 'ya29.', 'pypi-', 'SG.', 'lin_api_', 'secret_', 'ntn_', 'figd_'].map((prefix) => ({
    prefix,
    alphabet: 'base64url' as const,
  })),
  ...['npm_', 'hf_', 'gsk_', 'xai-', 'r8_'].map((prefix) => ({ prefix, alphabet: 'alnum' as const })),
  ...['dop_v1_', 'shpat_', 'dckr_pat_', 'dapi'].map((prefix) => ({ prefix, alphabet: 'hex' as const })),
];

const LETTERS: Record<Exclude<PlaceholderAlphabet, 'jwt'>, string> = {
  alnum: '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz',
  upper: 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567',
  hex: '0123456789abcdef',
  // Without - and _ at random places it is still in the alphabet, and splits nowhere.
  base64url: '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz',
};
const JWT_HEAD = `${Buffer.from('{"alg":"HS256","typ":"JWT"}').toString('base64url')}.`;
const RANDOM_BITS = 128;
const LONGEST = 256;
const PLAIN_CHARS = 40;

/**
 * How stand-ins for a value are to look, so that tools that check a prefix take them. Of the value only a vendor's public
 * beginning is kept, and the length where such a beginning fixes it.
 */
export function learnShape(value: string): PlaceholderShape {
  if (/^eyJ[\w-]+\.[\w-]+\.[\w-]*$/.test(value)) return { prefix: JWT_HEAD, alphabet: 'jwt', lengthChars: 0 };
  const known = KNOWN.find(({ prefix }) => value.startsWith(prefix));
  if (known === undefined) return plainShape('');
  return { ...known, lengthChars: Math.min(value.length, LONGEST) };
}

/** Of a value that is not known here. */
export function plainShape(prefix: string): PlaceholderShape {
  const known = KNOWN.find((one) => one.prefix === prefix);
  return { prefix, alphabet: known?.alphabet ?? 'alnum', lengthChars: Math.max(PLAIN_CHARS, prefix.length) };
}

/** A new stand-in: at least 128 random bits, whatever the shape asks for. */
export function mintPlaceholder(shape: PlaceholderShape): string {
  if (shape.alphabet === 'jwt') {
    const claims = Buffer.from(JSON.stringify({ sub: randomBytes(16).toString('hex') })).toString('base64url');
    return `${shape.prefix}${claims}.${randomBytes(32).toString('base64url')}`;
  }
  const letters = LETTERS[shape.alphabet];
  const needed = Math.ceil(RANDOM_BITS / Math.log2(letters.length));
  return shape.prefix + draw(letters, Math.max(needed, Math.min(shape.lengthChars, LONGEST) - shape.prefix.length));
}

/** Bytes that would favour some letters are drawn again. */
function draw(letters: string, count: number): string {
  const fair = 256 - (256 % letters.length);
  let text = '';
  while (text.length < count) {
    for (const byte of randomBytes(2 * count)) {
      if (byte < fair && text.length < count) text += letters.charAt(byte % letters.length);
    }
  }
  return text;
}
