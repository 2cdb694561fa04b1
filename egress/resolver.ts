import { lookup } from 'node:dns/promises';
import { readFileSync, statSync } from 'node:fs';
import net from 'node:net';
import { canonicalHost } from './hosts.ts';

const ADDRESSES_MAX = 32;
const LOOKUP_MS = 10_000;
/** Lookups of all sandboxes at once: each holds a thread. */
const LOOKUPS_MAX = 64;

/** The name has no address, or nobody could be asked. */
export class ResolveError extends Error {
  readonly code: 'name_not_found' | 'name_unavailable';

  constructor(code: ResolveError['code'], message: string) {
    super(message);
    this.name = 'ResolveError';
    this.code = code;
  }
}

/**
 * Names to addresses, as the machine resolves them. Nothing is kept: whoever dials takes what came here, so an answer
 * that changes later changes nothing. A file of static names goes first; it is read again when it changed.
 */
export class Resolver {
  readonly #hostsFile: string | null;
  readonly #running = new Map<string, Promise<string[]>>();
  #hosts = { stamp: '', names: new Map<string, string[]>() };

  constructor(hostsFile: string | null) {
    this.#hostsFile = hostsFile;
  }

  /** All addresses of a canonical host, in the order to try them. */
  async resolve(host: string): Promise<string[]> {
    if (net.isIP(host) !== 0) return [host];
    const fixed = this.#staticNames().get(host);
    if (fixed !== undefined) return fixed;
    const running = this.#running.get(host);
    if (running !== undefined) return running;
    if (this.#running.size >= LOOKUPS_MAX) throw new ResolveError('name_unavailable', 'too many names are looked up');
    const asked = ask(host).finally(() => this.#running.delete(host));
    this.#running.set(host, asked);
    return asked;
  }

  #staticNames(): Map<string, string[]> {
    if (this.#hostsFile === null) return this.#hosts.names;
    try {
      const { mtimeMs, size, ino } = statSync(this.#hostsFile);
      const stamp = `${mtimeMs} ${size} ${ino}`;
      if (stamp !== this.#hosts.stamp) this.#hosts = { stamp, names: parse(readFileSync(this.#hostsFile, 'utf8')) };
    } catch {
      this.#hosts = { stamp: '', names: new Map() };
    }
    return this.#hosts.names;
  }
}

async function ask(host: string): Promise<string[]> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new ResolveError('name_unavailable', `no answer about ${host}`)), LOOKUP_MS);
  });
  try {
    // The dot keeps search domains out: what was decided about is the name as it stands.
    const found = await Promise.race([lookup(`${host}.`, { all: true, verbatim: true }), late]);
    return [...new Set(found.map(({ address }) => address))].slice(0, ADDRESSES_MAX);
  } catch (error) {
    if (error instanceof ResolveError) throw error;
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOTFOUND') throw new ResolveError('name_not_found', `${host} has no address`);
    throw new ResolveError('name_unavailable', `${host} could not be resolved (${code ?? 'unknown'})`);
  } finally {
    clearTimeout(timer);
  }
}

/** hosts(5): an address and names on each line. */
function parse(text: string): Map<string, string[]> {
  const names = new Map<string, string[]>();
  for (const line of text.split('\n')) {
    const [address = '', ...given] = line.replace(/#.*/, '').trim().split(/\s+/);
    if (net.isIP(address) === 0) continue;
    for (const name of given) {
      const host = canonicalHost(name)?.host;
      if (host !== undefined) names.set(host, [...(names.get(host) ?? []), address]);
    }
  }
  return names;
}
