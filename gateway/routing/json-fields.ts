/** Where a top-level value lies in the bytes of a JSON object. */
export interface FieldSpan {
  start: number;
  end: number;
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COLON = 0x3a;
const COMMA = 0x2c;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;

/** Tokens looked at before the scan gives up and the caller parses: bounds the time a hostile body can take. */
const MAX_TOKENS = 50_000;

const NOT_PLAIN = /[^a-z0-9_]/;
const ASCII = /^[\x20-\x7e]*$/;

/** A member of a JSON object: its name without escapes, where it begins, and its value. */
interface Member extends FieldSpan {
  name: string;
  keyStart: number;
}

/**
 * Finds the top-level members without parsing: strings, where nearly all bytes of a prompt are, are skipped from quote
 * to quote. Undefined when the bytes are not an object or the scan gave up; the caller then parses, which also names
 * the mistake.
 */
export function listMembers(body: Buffer): Member[] | undefined {
  const scanner = new Scanner(body);
  const members: Member[] = [];
  if (!scanner.take(OPEN_BRACE)) return undefined;
  for (;;) {
    if (scanner.take(CLOSE_BRACE)) return scanner.atEnd() ? members : undefined;
    const key = scanner.value();
    if (key === undefined || body[key.start] !== QUOTE || !scanner.take(COLON)) return undefined;
    const value = scanner.value();
    if (value === undefined) return undefined;
    const name = body.toString('latin1', key.start + 1, key.end - 1);
    // An escaped name could hide a wanted one.
    if (name.includes('\\')) return undefined;
    members.push({ name, keyStart: key.start, start: value.start, end: value.end });
    if (!scanner.take(COMMA) && body[scanner.position] !== CLOSE_BRACE) return undefined;
  }
}

/** A name as servers see it that do not care for case. */
export function foldedName(name: string): string {
  // Both ways: some letters (the long s, the Kelvin sign) have a partner in one direction only.
  return name.toUpperCase().toLowerCase();
}

/**
 * The wanted members by name; undefined as above, when one is there twice (of equal names parsers take the last), and
 * when another name could be taken for one.
 */
export function findTopLevelFields(body: Buffer, wanted: readonly string[]): Map<string, FieldSpan> | undefined {
  const found = new Map<string, FieldSpan>();
  const members = listMembers(body);
  if (members === undefined) return undefined;
  for (const { name, start, end } of members) {
    if (found.has(name)) return undefined;
    if (wanted.includes(name)) found.set(name, { start, end });
    else if (NOT_PLAIN.test(name) && (!ASCII.test(name) || wanted.includes(foldedName(name)))) return undefined;
  }
  return found;
}

class Scanner {
  position = 0;
  readonly #body: Buffer;
  #tokens = 0;

  constructor(body: Buffer) {
    this.#body = body;
  }

  /** Steps over white space, then over `byte` if it is there. */
  take(byte: number): boolean {
    this.#skipSpace();
    if (this.#body[this.position] !== byte) return false;
    this.position += 1;
    this.#skipSpace();
    return true;
  }

  atEnd(): boolean {
    this.#skipSpace();
    return this.position >= this.#body.length;
  }

  /** Steps over one whole value and the white space behind it. */
  value(): FieldSpan | undefined {
    this.#skipSpace();
    const start = this.position;
    const isWhole = this.#skipValue();
    if (!isWhole || this.position === start) return undefined;
    const end = this.position;
    this.#skipSpace();
    return { start, end };
  }

  #skipValue(): boolean {
    const first = this.#body[this.position];
    if (first === QUOTE) return this.#skipString();
    if (first === OPEN_BRACE || first === OPEN_BRACKET) return this.#skipNested();
    while (this.position < this.#body.length && !isDelimiter(this.#body[this.position])) this.position += 1;
    return true;
  }

  #skipNested(): boolean {
    let depth = 0;
    while (this.position < this.#body.length) {
      const byte = this.#body[this.position];
      if (byte === QUOTE) {
        if (!this.#skipString()) return false;
        continue;
      }
      this.position += 1;
      if (byte === OPEN_BRACE || byte === OPEN_BRACKET) depth += 1;
      else if (byte === CLOSE_BRACE || byte === CLOSE_BRACKET) {
        depth -= 1;
        if (depth === 0) return true;
      }
    }
    return false;
  }

  #skipString(): boolean {
    this.#tokens += 1;
    if (this.#tokens > MAX_TOKENS) return false;
    let quote = this.#body.indexOf(QUOTE, this.position + 1);
    while (quote !== -1) {
      let slashes = 0;
      while (this.#body[quote - 1 - slashes] === BACKSLASH) slashes += 1;
      if (slashes % 2 === 0) {
        this.position = quote + 1;
        return true;
      }
      quote = this.#body.indexOf(QUOTE, quote + 1);
    }
    return false;
  }

  #skipSpace(): void {
    while (isSpace(this.#body[this.position])) this.position += 1;
  }
}

function isSpace(byte: number | undefined): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;
}

function isDelimiter(byte: number | undefined): boolean {
  return byte === COMMA || byte === CLOSE_BRACE || byte === CLOSE_BRACKET || byte === QUOTE || isSpace(byte);
}
