/** The forms in which a value is found again, each with what is put in its place. */
export interface Form {
  pattern: Buffer;
  replacement: Buffer;
  /** In its place where the encoded text ends with the pattern. */
  atEnd?: Buffer;
}

/** Of either alphabet of base64. */
export function isBase64(byte: number): boolean {
  return /[A-Za-z0-9+/_=-]/.test(String.fromCharCode(byte));
}

/** Shorter values are not looked for: they stand everywhere. */
export const MIN_VALUE_BYTES = 4;
/** Encoded forms of shorter values are not looked for. */
const MIN_ENCODED_BYTES = 8;
/** Of longer values the beginning is looked for in base64 and hexadecimal: what follows it alone is of no use. */
const MAX_ENCODED_BYTES = 2_048;
/** Of longer values only the part of a base64 text that they determine alone is looked for. */
const MAX_EXACT_BYTES = 256;

const STANDARD = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';
const URL_SAFE = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';

/**
 * The value itself, in hexadecimal and in base64 wherever it stands within the encoded text. `isExact` false: it is found all
 * the same, but what is put into base64 need not read as the stand-in.
 */
export function formsOf(value: Buffer, standIn: Buffer, isExact: boolean): Form[] {
  const forms: Form[] = [{ pattern: value, replacement: standIn }];
  if (value.length < MIN_ENCODED_BYTES) return forms;
  const encoded = value.subarray(0, MAX_ENCODED_BYTES);
  for (const upper of [false, true]) {
    const hex = (bytes: Buffer): Buffer => {
      const text = bytes.toString('hex');
      return Buffer.from(upper ? text.toUpperCase() : text);
    };
    forms.push({ pattern: hex(encoded), replacement: hex(standIn) });
  }
  for (const alphabet of [STANDARD, URL_SAFE]) {
    for (const offset of [0, 1, 2]) forms.push(...base64Forms(encoded, standIn, { offset, alphabet, isExact }));
  }
  return forms;
}

/**
 * Base64 at one of three offsets from the beginning of a group. The character that the value shares with what stands before it
 * is tried in all its variants, so that the stand-in is whole, too; with what follows, the end of the text is one of them.
 */
function base64Forms(
  value: Buffer,
  standIn: Buffer,
  { offset, alphabet, isExact }: { offset: number; alphabet: string; isExact: boolean },
): Form[] {
  const stem = determined(value, offset, alphabet);
  const isSameEnd = value.length % 3 === standIn.length % 3;
  const spare = 'REDACTED'.repeat(Math.ceil(stem.length / 8)).slice(0, stem.length);
  const standInStem = isSameEnd ? determined(standIn, offset, alphabet) : spare;
  if (!isExact || value.length > MAX_EXACT_BYTES) return [form(stem, standInStem)];
  const forms: Form[] = [];
  for (const before of sharedBefore(offset)) {
    const lead = leading(value, before, offset, alphabet);
    const standInLead = leading(standIn, before, offset, alphabet);
    const end = ending(value, offset, alphabet);
    const whole = standInLead + determined(standIn, offset, alphabet) + ending(standIn, offset, alphabet);
    const within = form(lead + stem, standInLead + standInStem);
    // The end of the text shows in no character of its own.
    forms.push(end === '' && !isSameEnd ? { ...within, atEnd: Buffer.from(whole) } : within);
    if (end === '') continue;
    forms.push(form(lead + stem + end, whole));
    forms.push(form(lead + stem + end.replaceAll('=', ''), whole.replaceAll('=', '')));
  }
  // What stands before is unknown when the text was cut.
  if (offset > 0) forms.push(form(stem, standInStem));
  return forms;
}

function form(pattern: string, replacement: string): Form {
  return { pattern: Buffer.from(pattern), replacement: Buffer.from(replacement) };
}

/** The last bits of the byte before, of which the shared character has 2 at offset 1 and 4 at offset 2. */
function sharedBefore(offset: number): number[] {
  if (offset === 0) return [0];
  return Array.from({ length: offset === 1 ? 4 : 16 }, (_, bits) => bits);
}

function leading(value: Buffer, before: number, offset: number, alphabet: string): string {
  if (offset === 0) return '';
  const first = value[0] ?? 0;
  return alphabet.charAt(offset === 1 ? (before << 4) | (first >> 4) : (before << 2) | (first >> 6));
}

/** The characters that the value alone determines. */
function determined(value: Buffer, offset: number, alphabet: string): string {
  const text = encode(Buffer.concat([Buffer.alloc(offset), value]), alphabet);
  return text.slice(Math.ceil((offset * 8) / 6), Math.floor(((offset + value.length) * 8) / 6));
}

/** What is after them when the value is the end of the text. */
function ending(value: Buffer, offset: number, alphabet: string): string {
  const text = encode(Buffer.concat([Buffer.alloc(offset), value]), alphabet);
  return text.slice(Math.floor(((offset + value.length) * 8) / 6));
}

function encode(bytes: Buffer, alphabet: string): string {
  const text = bytes.toString('base64');
  return alphabet === STANDARD ? text : text.replaceAll('+', '-').replaceAll('/', '_');
}
