import { Automaton } from './automaton.ts';
import type { Form } from './encodings.ts';
import { formsOf, isBase64, MIN_VALUE_BYTES } from './encodings.ts';
import { LooseReader } from './loose-reader.ts';

/** A live secret and what stands for it where it is found. */
export interface KnownValue {
  value: string;
  standIn: string;
}

/** Of more secrets together, stand-ins within base64 are not tried in all variants. */
const MAX_EXACT_TOTAL_BYTES = 16 * 1024;

const LF = 0x0a;
const CR = 0x0d;

interface Table {
  automaton: Automaton;
  forms: Form[];
}

/** Finds known values in texts and streams, also encoded: base64 at any offset, hexadecimal, percent and JSON escapes. */
export class ValueMatcher {
  readonly raw: Table;
  readonly loose: Table;
  /** Longest form, in bytes as read. */
  readonly longest: number;
  readonly isEmpty: boolean;

  constructor(values: readonly KnownValue[]) {
    const raw: Form[] = [];
    const loose: Form[] = [];
    const isExact = values.reduce((sum, { value }) => sum + Buffer.byteLength(value), 0) <= MAX_EXACT_TOTAL_BYTES;
    for (const { value, standIn } of values) {
      for (const text of new Set([value, value.trim()])) {
        const bytes = Buffer.from(text);
        if (bytes.length < MIN_VALUE_BYTES) continue;
        const [plain, ...encoded] = formsOf(bytes, Buffer.from(standIn), isExact);
        if (plain === undefined) continue;
        raw.push(plain, ...encoded);
        const read = readLoosely(bytes);
        if (read.length >= MIN_VALUE_BYTES) loose.push({ pattern: read, replacement: plain.replacement });
        // Of a value with something like an escape in it, written with each of its characters escaped.
        const literal = bytes.filter((byte) => byte !== LF && byte !== CR);
        if (literal.length >= MIN_VALUE_BYTES && !read.equals(literal)) {
          loose.push({ pattern: Buffer.from(literal), replacement: plain.replacement });
        }
        loose.push(...encoded);
      }
    }
    this.raw = tableOf(raw);
    this.loose = tableOf(loose);
    this.longest = [...raw, ...loose].reduce((most, { pattern }) => Math.max(most, pattern.length), 0);
    this.isEmpty = raw.length === 0;
  }

  /** The text without the values, and how many places were changed. */
  redact(text: string): { text: string; redactions: number } {
    if (this.isEmpty) return { text, redactions: 0 };
    const scanner = new ValueScanner(this);
    const clean = Buffer.concat([scanner.feed(Buffer.from(text)), scanner.end()]);
    return scanner.redactions === 0
      ? { text, redactions: 0 }
      : { text: clean.toString(), redactions: scanner.redactions };
  }
}

function tableOf(forms: Form[]): Table {
  return { automaton: new Automaton(forms.map(({ pattern }) => pattern)), forms };
}

/** A value as the loose reading shows it; the end that could be the beginning of an escape is left out. */
function readLoosely(value: Buffer): Buffer {
  const bytes: number[] = [];
  const reader = new LooseReader((byte) => bytes.push(byte));
  for (const [position, byte] of value.entries()) reader.push(byte, position);
  return Buffer.from(bytes);
}

interface Range {
  start: number;
  end: number;
  form: Form;
}

/** 1 for bytes that mean something else to the loose reading. */
const ESCAPES = Uint8Array.from({ length: 256 }, (_, byte) => ('%\\\r\n'.includes(String.fromCharCode(byte)) ? 1 : 0));

/** Bytes that may be held back while a value could still be going on; then they are given as they are. */
const MAX_HELD_BYTES = 64 * 1024;

/** One stream. What `feed` gives is final; only what may be the beginning of a value is held back. */
export class ValueScanner {
  redactions = 0;
  readonly #matcher: ValueMatcher;
  readonly #reader: LooseReader;
  /** Where the source of each of the last bytes of the loose reading begins. */
  readonly #starts: Float64Array;
  readonly #startsMask: number;
  #rawState = 0;
  #looseState = 0;
  #looseCount = 0;
  /** Position just after the source byte that is read. */
  #read = 0;
  #held: Buffer = Buffer.alloc(0);
  #heldStart = 0;
  #ranges: Range[] = [];

  constructor(matcher: ValueMatcher) {
    this.#matcher = matcher;
    const size = 2 ** Math.ceil(Math.log2(matcher.longest + 2));
    this.#starts = new Float64Array(size);
    this.#startsMask = size - 1;
    this.#reader = new LooseReader(
      (byte, start) => this.#looseByte(byte, start),
      () => {
        this.#looseState = 0;
      },
    );
  }

  feed(chunk: Uint8Array): Buffer {
    const start = this.#read;
    this.#scanRaw(chunk, start);
    this.#scanLoose(chunk, start);
    this.#read = start + chunk.length;
    this.#held = this.#held.length === 0 ? Buffer.from(chunk) : Buffer.concat([this.#held, chunk]);
    return this.#release(this.#openFrom(), false);
  }

  end(): Buffer {
    this.#reader.end();
    return this.#release(this.#read, true);
  }

  #scanRaw(chunk: Uint8Array, start: number): void {
    const { automaton, forms } = this.#matcher.raw;
    const { found } = automaton;
    let state = this.#rawState;
    for (let index = 0; index < chunk.length; index += 1) {
      state = automaton.step(state, chunk[index] ?? 0);
      const which = found[state] ?? -1;
      if (which < 0) continue;
      const form = forms[which];
      if (form === undefined) continue;
      const end = start + index + 1;
      this.#ranges.push({ start: end - form.pattern.length, end, form });
    }
    this.#rawState = state;
  }

  /** Bytes that are no escape go straight to the automaton: there are many of them. */
  #scanLoose(chunk: Uint8Array, start: number): void {
    const { automaton } = this.#matcher.loose;
    const { found } = automaton;
    const starts = this.#starts;
    const mask = this.#startsMask;
    let state = this.#looseState;
    let count = this.#looseCount;
    let isIdle = this.#reader.isIdle;
    for (let index = 0; index < chunk.length; index += 1) {
      const byte = chunk[index] ?? 0;
      if (isIdle && ESCAPES[byte] === 0) {
        starts[count & mask] = start + index;
        count += 1;
        state = automaton.step(state, byte);
        if ((found[state] ?? -1) < 0) continue;
        this.#looseCount = count;
        this.#read = start + index + 1;
        this.#foundLoosely(state);
        continue;
      }
      this.#looseState = state;
      this.#looseCount = count;
      this.#read = start + index + 1;
      this.#reader.push(byte, start + index);
      state = this.#looseState;
      count = this.#looseCount;
      isIdle = this.#reader.isIdle;
    }
    this.#looseState = state;
    this.#looseCount = count;
  }

  #foundLoosely(state: number): void {
    const { automaton, forms } = this.#matcher.loose;
    const which = automaton.found[state] ?? -1;
    const form = which < 0 ? undefined : forms[which];
    if (form !== undefined) this.#ranges.push({ start: this.#startOf(form.pattern.length), end: this.#read, form });
  }

  #looseByte(byte: number, start: number): void {
    this.#starts[this.#looseCount & this.#startsMask] = start;
    this.#looseCount += 1;
    this.#looseState = this.#matcher.loose.automaton.step(this.#looseState, byte);
    this.#foundLoosely(this.#looseState);
  }

  /** Where the source of the last `depth` bytes of the loose reading begins. */
  #startOf(depth: number): number {
    return this.#starts[(this.#looseCount - depth) & this.#startsMask] ?? 0;
  }

  /** Everything before it is final. */
  #openFrom(): number {
    const rawDepth = this.#matcher.raw.automaton.depth[this.#rawState] ?? 0;
    const looseDepth = this.#matcher.loose.automaton.depth[this.#looseState] ?? 0;
    const open = Math.min(
      this.#read - rawDepth,
      looseDepth === 0 ? this.#read : this.#startOf(looseDepth),
      this.#reader.pendingStart ?? this.#read,
    );
    if (this.#read - open <= MAX_HELD_BYTES) return open;
    this.#rawState = 0;
    this.#looseState = 0;
    return this.#read;
  }

  #release(until: number, isLast: boolean): Buffer {
    const merged = merge(this.#ranges);
    const isCrossing = (range: Range): boolean =>
      range.end > until || (!isLast && range.end === this.#read && range.form.atEnd !== undefined);
    const crossing = merged.find(isCrossing);
    const limit = Math.min(until, crossing?.start ?? until);
    const parts: Buffer[] = [];
    let at = this.#heldStart;
    for (const range of merged) {
      if (isCrossing(range)) break;
      parts.push(this.#held.subarray(at - this.#heldStart, range.start - this.#heldStart), this.#standIn(range));
      at = range.end;
      this.redactions += 1;
    }
    parts.push(this.#held.subarray(at - this.#heldStart, limit - this.#heldStart));
    this.#ranges = merged.filter((range) => range.start >= limit);
    this.#held = this.#held.subarray(limit - this.#heldStart);
    this.#heldStart = limit;
    return parts.length === 1 && parts[0] !== undefined ? parts[0] : Buffer.concat(parts);
  }

  #standIn({ end, form }: Range): Buffer {
    if (form.atEnd === undefined) return form.replacement;
    const next = this.#held[end - this.#heldStart];
    return next === undefined || !isBase64(next) ? form.atEnd : form.replacement;
  }
}

/** Overlapping finds are one, told as the longest of them. */
function merge(ranges: Range[]): Range[] {
  const merged: Range[] = [];
  for (const range of ranges.toSorted((a, b) => a.start - b.start || b.end - a.end)) {
    const last = merged.at(-1);
    if (last === undefined || range.start >= last.end) {
      merged.push({ ...range });
      continue;
    }
    if (range.form.pattern.length > last.form.pattern.length) last.form = range.form;
    last.end = Math.max(last.end, range.end);
  }
  return merged;
}
