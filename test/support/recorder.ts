import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import type { Query } from './session-driver.ts';

const FILE = 'effects.log';

/** A command that leaves a trace of its start and of its end where only the sandbox and the host's files are involved. */
export function recorded(key: string, seconds = 0): string {
  const line = (what: string): string => `echo "${key} ${what}" >> /workspace/${FILE}`;
  return seconds === 0 ? `${line('start')}; ${line('end')}` : `${line('start')}; sleep ${seconds}; ${line('end')}`;
}

/** The key of a command that `recorded` made. */
export function keyOf(command: unknown): string | undefined {
  return typeof command === 'string' ? /^echo "(\S+) start" >> /.exec(command)?.[1] : undefined;
}

interface Traces {
  starts: number;
  ends: number;
}

/**
 * What really happened, from the files of the sandboxes on the host: no table, log or answer of the product takes part.
 * A sandbox that is gone took its files along; what was read of it before is kept.
 */
export class Recorder {
  readonly #home: string;
  readonly #query: Query;
  readonly #seen = new Map<string, string>();

  constructor(home: string, query: Query) {
    this.#home = home;
    this.#query = query;
  }

  /** Host folder of the session's newest sandbox; undefined when it has none. */
  async #folderOf(sessionId: string): Promise<string | undefined> {
    return (await this.#folders(sessionId)).at(-1);
  }

  /** How often the command with this key began and how often it came to its end. */
  async traces(sessionId: string, key: string): Promise<Traces> {
    const lines = (await this.#read(sessionId)).split('\n');
    const count = (what: string): number => lines.filter((line) => line === `${key} ${what}`).length;
    return { starts: count('start'), ends: count('end') };
  }

  /** Where the commands of the session's newest sandbox find /workspace. */
  async workspaceOf(sessionId: string): Promise<string> {
    const folder = await this.#folderOf(sessionId);
    const found = folder === undefined ? undefined : workspaces(folder).find((place) => existsSync(place));
    if (found === undefined) throw new Error(`${sessionId} has no workspace on this host`);
    return found;
  }

  /** Processes that live in the session's newest sandbox; process 1 of its namespace first. */
  async processesOf(sessionId: string): Promise<number[]> {
    const folder = await this.#folderOf(sessionId);
    return folder === undefined ? [] : processesAt(path.basename(folder));
  }

  /** What the host has of sandboxes, whatever the record says. */
  sandboxIds(): string[] {
    return readdirSync(path.join(this.#home, 'sandboxes')).filter((name) => name.startsWith('lh-'));
  }

  async #read(sessionId: string): Promise<string> {
    for (const folder of await this.#folders(sessionId)) {
      const file = workspaces(folder)
        .map((place) => path.join(place, FILE))
        .find((place) => existsSync(place));
      if (file !== undefined) this.#seen.set(`${sessionId} ${folder}`, readFileSync(file, 'utf8'));
    }
    return [...this.#seen].flatMap(([place, text]) => (place.startsWith(`${sessionId} `) ? [text] : [])).join('');
  }

  async #folders(sessionId: string): Promise<string[]> {
    const rows = await this.#query<{ id: string }>(
      `SELECT ref->>'id' AS id FROM sandboxes WHERE session_id = $1 AND ref IS NOT NULL ORDER BY generation`,
      [sessionId],
    );
    return rows.map(({ id }) => path.join(this.#home, 'sandboxes', id));
  }
}

function workspaces(folder: string): string[] {
  return [path.join(folder, 'box', 'workspace'), path.join(folder, 'workspace')];
}

/** By what the kernel says: whoever has the sandbox's folder mounted and a pid namespace of its own. */
function processesAt(sandboxId: string): number[] {
  const found = readdirSync('/proc').flatMap((entry) => {
    if (!/^\d+$/.test(entry)) return [];
    try {
      if (!readFileSync(`/proc/${entry}/mountinfo`, 'utf8').includes(sandboxId)) return [];
      const inner = /^NSpid:\s+\d+\s+(\d+)/m.exec(readFileSync(`/proc/${entry}/status`, 'utf8'))?.[1];
      return inner === undefined ? [] : [{ pid: Number(entry), inner: Number(inner) }];
    } catch {
      return [];
    }
  });
  return found.toSorted((a, b) => a.inner - b.inner).map(({ pid }) => pid);
}
