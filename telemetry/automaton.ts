/** The shallow states, where a text is nearly always, have a whole row each; all rows together have this many cells. */
const ROW_CELLS = 1024 * 1024;

/**
 * Many byte strings, none empty, found in one pass (Aho-Corasick): linear in the text, however many they are. A row for
 * every state would take gigabytes for some hundred secrets, so the deep ones have only their branches.
 */
export class Automaton {
  /** How much of a pattern is known in a state: the longest that may still become one. */
  readonly depth: Int32Array;
  /** Index of the longest pattern that ends in a state; -1: none does. */
  readonly found: Int32Array;
  /** Rows of the first states, numbered by depth: the state after the byte `b` in state `s` is `rows[s * width + classOf[b]]`. */
  private readonly rows: Int32Array;
  private readonly rowCount: number;
  private readonly classOf: Uint16Array;
  private readonly width: number;
  private readonly trie: Trie;
  /** The longest beginning of a pattern that a state ends with, but itself. */
  private readonly suffixOf: Int32Array;

  constructor(patterns: readonly Uint8Array[]) {
    this.classOf = classesOf(patterns);
    this.width = Math.max(...this.classOf) + 1;
    this.trie = byDepth(planted(patterns));
    this.depth = this.trie.depth;
    this.found = this.trie.found;
    this.suffixOf = new Int32Array(this.depth.length);
    this.#link();
    this.rowCount = Math.min(this.depth.length, Math.max(1, Math.floor(ROW_CELLS / this.width)));
    this.rows = this.#fillRows();
  }

  /** The state after a byte. State 0 is the beginning. */
  step(state: number, byte: number): number {
    let at = state;
    while (at >= this.rowCount) {
      const branch = branchOf(this.trie, at, byte);
      if (branch !== 0) return branch;
      at = this.suffixOf[at] ?? 0;
    }
    return this.rows[at * this.width + (this.classOf[byte] ?? 0)] ?? 0;
  }

  /** States are numbered by depth, so what one refers to is there already. */
  #link(): void {
    const { trie, suffixOf, found } = this;
    for (let state = 0; state < suffixOf.length; state += 1) {
      for (let branch = at0(trie.first, state); branch !== 0; branch = at0(trie.next, branch)) {
        const suffix = state === 0 ? 0 : this.#suffixAfter(at0(suffixOf, state), at0(trie.label, branch));
        suffixOf[branch] = suffix;
        if (at0(found, branch) === -1) found[branch] = at0(found, suffix);
      }
    }
  }

  #suffixAfter(from: number, byte: number): number {
    for (let at = from; ; at = at0(this.suffixOf, at)) {
      const branch = branchOf(this.trie, at, byte);
      if (branch !== 0 || at === 0) return branch;
    }
  }

  #fillRows(): Int32Array {
    const { width, trie } = this;
    const rows = new Int32Array(this.rowCount * width);
    for (let state = 0; state < this.rowCount; state += 1) {
      const start = state * width;
      const suffix = at0(this.suffixOf, state) * width;
      if (state !== 0) rows.copyWithin(start, suffix, suffix + width);
      for (let branch = at0(trie.first, state); branch !== 0; branch = at0(trie.next, branch)) {
        rows[start + at0(this.classOf, at0(trie.label, branch))] = branch;
      }
    }
    return rows;
  }
}

/** A tree of bytes: each state has a first branch, each branch the next of its parent. 0: none. */
interface Trie {
  first: Int32Array;
  next: Int32Array;
  label: Int32Array;
  depth: Int32Array;
  found: Int32Array;
}

function planted(patterns: readonly Uint8Array[]): Trie {
  let trie = emptyTrie(1_024);
  let count = 1;
  for (const [index, pattern] of patterns.entries()) {
    if (count + pattern.length > trie.first.length) trie = grown(trie, 2 * (count + pattern.length));
    let state = 0;
    for (const byte of pattern) {
      let branch = branchOf(trie, state, byte);
      if (branch === 0) {
        branch = count;
        count += 1;
        trie.label[branch] = byte;
        trie.depth[branch] = at0(trie.depth, state) + 1;
        trie.next[branch] = at0(trie.first, state);
        trie.first[state] = branch;
      }
      state = branch;
    }
    if (state !== 0) trie.found[state] = index;
  }
  return cut(trie, count);
}

/** The same with its states numbered breadth first. */
function byDepth(trie: Trie): Trie {
  const count = trie.first.length;
  const order = new Int32Array(count);
  const numberOf = new Int32Array(count);
  let known = 1;
  for (let index = 0; index < known; index += 1) {
    for (let branch = at0(trie.first, at0(order, index)); branch !== 0; branch = at0(trie.next, branch)) {
      order[known] = branch;
      numberOf[branch] = known;
      known += 1;
    }
  }
  const moved = emptyTrie(count);
  for (const [index, state] of order.entries()) {
    moved.first[index] = at0(numberOf, at0(trie.first, state));
    moved.next[index] = at0(numberOf, at0(trie.next, state));
    moved.label[index] = at0(trie.label, state);
    moved.depth[index] = at0(trie.depth, state);
    moved.found[index] = at0(trie.found, state);
  }
  return moved;
}

function branchOf({ first, next, label }: Trie, state: number, byte: number): number {
  let branch = first[state] ?? 0;
  while (branch !== 0 && label[branch] !== byte) branch = next[branch] ?? 0;
  return branch;
}

function emptyTrie(size: number): Trie {
  const column = (): Int32Array => new Int32Array(size);
  return { first: column(), next: column(), label: column(), depth: column(), found: column().fill(-1) };
}

function grown(trie: Trie, size: number): Trie {
  const larger = emptyTrie(size);
  for (const name of COLUMNS) larger[name].set(trie[name]);
  return larger;
}

function cut(trie: Trie, count: number): Trie {
  const exact = emptyTrie(count);
  for (const name of COLUMNS) exact[name].set(trie[name].subarray(0, count));
  return exact;
}

const COLUMNS = ['first', 'next', 'label', 'depth', 'found'] as const;

/** Bytes that no pattern has are one class: the rows stay short. */
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
