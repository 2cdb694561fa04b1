/** Takes a decoded byte and where its source begins. */
type Emit = (byte: number, sourceStart: number) => void;

const PERCENT = 0x25;
const BACKSLASH = 0x5c;
const LF = 0x0a;
const CR = 0x0d;
const SIMPLE: Readonly<Record<string, number>> = {
  n: LF,
  r: CR,
  t: 0x09,
  b: 0x08,
  f: 0x0c,
  '"': 0x22,
  '/': 0x2f,
  "'": 0x27,
};
const SIMPLE_BYTES = Uint8Array.from({ length: 256 }, (_, byte) => SIMPLE[String.fromCharCode(byte)] ?? 0);
/** Longer runs are not followed: each is a step of nesting. */
const MAX_PENDING = 64;

/**
 * Reads bytes as they would be after percent, JSON and \x escapes of any depth, without line breaks. The same reading of a value
 * is what is looked for, so it needs to be the same for every way of escaping, not to be right.
 */
export class LooseReader {
  readonly #emit: Emit;
  readonly #onBlankLine: () => void;
  /** Source bytes of an escape that is not complete. */
  #pending: number[] = [];
  #pendingStart = 0;
  /** First half of a pair of code units. */
  #high = 0;
  #lineFeeds = 0;

  constructor(emit: Emit, onBlankLine: () => void = () => undefined) {
    this.#emit = emit;
    this.#onBlankLine = onBlankLine;
  }

  /** Where the source of an unfinished escape begins; undefined: there is none. */
  get pendingStart(): number | undefined {
    return this.#pending.length === 0 ? undefined : this.#pendingStart;
  }

  /** True when a byte that is no escape and no line break would go through as it is. */
  get isIdle(): boolean {
    return this.#pending.length === 0 && this.#lineFeeds === 0 && this.#high === 0;
  }

  push(byte: number, position: number): void {
    if (this.#pending.length > 0) return this.#extend(byte, position);
    if (byte === PERCENT || byte === BACKSLASH) {
      this.#lineFeeds = 0;
      this.#pending = [byte];
      this.#pendingStart = position;
      return;
    }
    this.#plain(byte, position);
  }

  end(): void {
    const rest = this.#pending;
    this.#pending = [];
    if (rest.length > 0) this.#giveBack(rest, this.#pendingStart + rest.length - 1, true);
  }

  #plain(byte: number, position: number): void {
    if (byte === LF) {
      this.#lineFeeds += 1;
      if (this.#lineFeeds === 2) this.#onBlankLine();
      return;
    }
    if (byte === CR) return;
    this.#lineFeeds = 0;
    this.#high = 0;
    this.#emit(byte, position);
  }

  #extend(byte: number, position: number): void {
    const pending = this.#pending;
    // Most escapes are these.
    const simple = pending.length === 1 && pending[0] === BACKSLASH ? (SIMPLE_BYTES[byte] ?? 0) : 0;
    if (simple !== 0) {
      this.#pending = [];
      this.#decoded(simple);
      return;
    }
    pending.push(byte);
    const verdict = pending[0] === PERCENT ? percent(pending) : escape(pending);
    if (verdict === 'more' && pending.length < MAX_PENDING) return;
    this.#pending = [];
    if (verdict === 'more' || verdict === 'none') return this.#giveBack(pending, position);
    this.#decoded(verdict);
  }

  /** No escape: its sign stands for itself, the bytes after it may begin one. `%25` and runs of backslashes are one sign. */
  #giveBack(pending: number[], position: number, isEnd = false): void {
    const [sign = 0] = pending;
    const signs = String.fromCharCode(...pending).match(sign === PERCENT ? /^%(?:25)*/ : /^\\+/)?.[0].length ?? 1;
    this.#emit(sign, this.#pendingStart);
    for (let index = signs; index < pending.length; index += 1) {
      const at = position - (pending.length - 1 - index);
      if (isEnd) this.#emit(pending[index] ?? 0, at);
      else this.push(pending[index] ?? 0, at);
    }
  }

  #decoded(code: number): void {
    const start = this.#pendingStart;
    const isByte = code < 0x80 || code >= AS_BYTE;
    if (isByte && ((code & 0xff) === LF || (code & 0xff) === CR)) return;
    if (isByte) {
      this.#high = 0;
      this.#emit(code & 0xff, start);
      return;
    }
    if (code >= 0xd800 && code < 0xdc00) {
      this.#high = code;
      return;
    }
    const isLow = code >= 0xdc00 && code < 0xe000;
    const point = isLow && this.#high !== 0 ? 0x10000 + ((this.#high - 0xd800) << 10) + (code - 0xdc00) : code;
    this.#high = 0;
    for (const byte of Buffer.from(String.fromCodePoint(isLow && point === code ? 0xfffd : point)))
      this.#emit(byte, start);
  }
}

/** Marks a code as one byte rather than a code point. */
const AS_BYTE = 0x1000000;

type Verdict = number | 'more' | 'none';

/** `%41`, and `%2541` as if it were that. */
function percent(pending: readonly number[]): Verdict {
  const digits = String.fromCharCode(...pending.slice(1));
  const rest = digits.replace(/^(?:25)*/, '');
  if (/^[0-9a-f]{2}$/i.test(rest)) return AS_BYTE | Number.parseInt(rest, 16);
  if (rest === '' || /^[0-9a-f]$/i.test(rest)) return 'more';
  return 'none';
}

/** A letter, `u` and four digits, or `x` and two, after any number of backslashes. */
function escape(pending: readonly number[]): Verdict {
  const text = String.fromCharCode(...pending).replace(/^\\+/, '');
  const letter = text.charAt(0);
  if (letter === '') return 'more';
  const simple = SIMPLE[letter];
  if (simple !== undefined) return simple;
  const length = letter === 'u' ? 4 : letter === 'x' ? 2 : 0;
  if (length === 0) return 'none';
  const digits = text.slice(1);
  if (!/^[0-9a-f]*$/i.test(digits)) return 'none';
  if (digits.length < length) return 'more';
  const code = Number.parseInt(digits, 16);
  return letter === 'x' ? AS_BYTE | code : code;
}
