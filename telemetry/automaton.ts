/** Many byte strings, none empty, found in one pass (Aho-Corasick as a table): linear in the text, however many they are. */
export class Automaton {
  /** State after the byte `b` in state `s`: `next[s * width + classOf[b]]`. State 0 is the beginning. */
  readonly next: Int32Array;
  readonly classOf: Uint16Array;
  readonly width: number;
  /** How much of a pattern is known in a state: the longest that may still become one. */
  readonly depth: Int32Array;
  /** Index of the longest pattern that ends in a state; -1: none does. */
  readonly found: Int32Array;

  constructor(patterns: readonly Uint8Array[]) {
    this.classOf = classesOf(patterns);
    this.width = Math.max(...this.classOf) + 1;
    const most = patterns.reduce((sum, pattern) => sum + pattern.length, 1);
    const trie = new Int32Array(most * this.width).fill(-1);
    const depth = new Int32Array(most);
    const found = new Int32Array(most).fill(-1);
    const count = this.#plant(patterns, trie, depth, found);
    this.next = trie.slice(0, count * this.width);
    this.depth = depth.slice(0, count);
    this.found = found.slice(0, count);
    this.#link();
  }

  #plant(patterns: readonly Uint8Array[], trie: Int32Array, depth: Int32Array, found: Int32Array): number {
    let count = 1;
    for (const [index, pattern] of patterns.entries()) {
      let state = 0;
      for (const byte of pattern) {
        const at = state * this.width + at0(this.classOf, byte);
        if (at0(trie, at) === -1) {
          trie[at] = count;
          depth[count] = at0(depth, state) + 1;
          count += 1;
        }
        state = at0(trie, at);
      }
      if (state !== 0) found[state] = index;
    }
    return count;
  }

  /** Breadth first: where no branch goes on, the state of the longest suffix that is a beginning does. */
  #link(): void {
    const { next, width, found } = this;
    const suffixOf = new Int32Array(this.depth.length);
    const queue = [0];
    for (const state of queue) {
      const suffix = at0(suffixOf, state);
      if (at0(found, state) === -1) found[state] = at0(found, suffix);
      for (let klass = 0; klass < width; klass += 1) {
        const at = state * width + klass;
        const fallback = state === 0 ? 0 : at0(next, suffix * width + klass);
        const child = at0(next, at);
        if (child === -1) next[at] = fallback;
        else {
          suffixOf[child] = fallback;
          queue.push(child);
        }
      }
    }
  }
}

/** Bytes that no pattern has are one class: the table stays small. */
function classesOf(patterns: readonly Uint8Array[]): Uint16Array {
  const classOf = new Uint16Array(256);
  let classes = 0;
  for (const pattern of patterns) {
    for (const byte of pattern) {
      if (classOf[byte] !== 0) continue;
      classes += 1;
      classOf[byte] = classes;
    }
  }
  return classOf;
}

function at0(array: Int32Array | Uint16Array, index: number): number {
  return array[index] ?? 0;
}
