import { timingSafeEqual } from 'node:crypto';
import type { Queryable } from '../../db/pool.ts';
import { findOpenPort, type OpenPort, portTokenHash } from '../../db/queries/session-ports.ts';

/** A closed port is closed here this much later at most. */
const KNOWN_MS = 2_000;
const KNOWN_MAX = 5_000;

interface Known {
  found: Promise<OpenPort | undefined>;
  atMs: number;
}

/** What may be opened, as the database has it; asked once for the many requests of a page. */
export class PortDirectory {
  private readonly db: Queryable;
  private readonly known = new Map<string, Known>();

  constructor(db: Queryable) {
    this.db = db;
  }

  /** Undefined: there is no such port, or not with this token. Whoever has the token learns that its time is over. */
  async open(id: string, token: string): Promise<OpenPort | undefined> {
    const found = await this.find(id);
    if (found === undefined || !timingSafeEqual(found.tokenHash, portTokenHash(token))) return undefined;
    return found;
  }

  /** For connections that stay: true while they may. */
  async isLive(id: string): Promise<boolean> {
    const found = await this.find(id);
    return found !== undefined && !found.isOver && found.expiresAt.getTime() > Date.now();
  }

  private find(id: string): Promise<OpenPort | undefined> {
    const known = this.known.get(id);
    if (known !== undefined && known.atMs > Date.now() - KNOWN_MS) return known.found;
    if (this.known.size >= KNOWN_MAX) this.known.clear();
    const entry = { found: findOpenPort(this.db, id), atMs: Date.now() };
    this.known.set(id, entry);
    entry.found.catch(() => {
      if (this.known.get(id) === entry) this.known.delete(id);
    });
    return entry.found;
  }
}
