import type { SessionCredential } from '../../contracts/credentials.ts';
import type { Pool } from '../../db/pool.ts';
import { findPlaceholders as readPlaceholders } from '../../db/queries/egress-approvals.ts';
import type { SecurityEventKind } from '../../db/queries/security-events.ts';
import type { Destination } from '../credentials/bindings.ts';
import { explain, misfitOf } from '../credentials/bindings.ts';
import { findPlaceholders, tokensOf } from '../credentials/find.ts';
import type { RequestHead } from '../decision.ts';

/** A placeholder where it may not be. */
export interface Misuse {
  kind: SecurityEventKind;
  code: string;
  message: string;
  /** Name of the credential, if it is one of this session. */
  credential: string | null;
  reason: string;
}

export type Placed = { misuse: Misuse } | { used: SessionCredential[] };

const KNOWN_TOKENS = 10_000;
const UNKNOWN_MS = 60_000;

/** Looks for placeholders in the heads of requests. */
export class PlaceholderWatch {
  readonly #pool: Pool;
  /** Tokens that are nobody's placeholder, and since when that is known. */
  readonly #harmless = new Map<string, number>();

  constructor(pool: Pool) {
    this.#pool = pool;
  }

  /** Which credentials the head uses, or what is wrong with it. `isReached`: the host is allowed at all. */
  async look(head: RequestHead, to: Destination, credentials: readonly SessionCredential[]): Promise<Placed> {
    const used = new Set<SessionCredential>();
    for (const { credential, location, header } of findPlaceholders(head, credentials)) {
      const misfit = location === 'path' ? 'location' : misfitOf(credential, to, location, header);
      if (misfit !== undefined) {
        const kind = misfit === 'revoked' ? 'placeholder_revoked' : 'placeholder_misused';
        const message = explain(credential, misfit, to);
        return { misuse: { kind, code: kind, message, credential: credential.name, reason: misfit } };
      }
      used.add(credential);
    }
    const foreign = await this.#foreign(head, credentials);
    return foreign === undefined ? { used: [...used] } : { misuse: foreign };
  }

  /** A placeholder of another session, or something shaped like one of this session's that is none. */
  async #foreign(head: RequestHead, credentials: readonly SessionCredential[]): Promise<Misuse | undefined> {
    const own = new Set(credentials.map(({ placeholder }) => placeholder));
    const tokens = tokensOf(head).filter((token) => !own.has(token));
    if (tokens.length === 0) return undefined;
    const known = await this.#lookUp(tokens);
    if (known.length > 0) {
      const message = 'a placeholder of another session was sent; it stands for nothing here';
      return { kind: 'placeholder_foreign', code: 'placeholder_foreign', message, credential: null, reason: 'session' };
    }
    const alike = credentials.find((credential) => tokens.some((token) => isShapedLike(token, credential.placeholder)));
    if (alike === undefined) return undefined;
    const message = `a token like that of credential ${alike.name} was sent that is not its placeholder`;
    return {
      kind: 'placeholder_unknown',
      code: 'placeholder_unknown',
      message,
      credential: alike.name,
      reason: 'unknown',
    };
  }

  async #lookUp(tokens: readonly string[]): Promise<string[]> {
    const now = Date.now();
    const open = tokens.filter((token) => (this.#harmless.get(token) ?? 0) < now - UNKNOWN_MS);
    if (open.length === 0) return [];
    const found = await readPlaceholders(this.#pool, open);
    if (this.#harmless.size > KNOWN_TOKENS) this.#harmless.clear();
    // A part of a string keeps the whole of it in memory, which may be all that a head can hold.
    for (const token of open) if (!found.has(token)) this.#harmless.set(Buffer.from(token).toString(), now);
    return [...found.keys()];
  }
}

/** Same beginning as vendors give to their tokens, and as long. */
function isShapedLike(token: string, placeholder: string): boolean {
  const beginning = /^[A-Za-z0-9]{2,8}[_-]/.exec(placeholder)?.[0];
  return beginning !== undefined && token.length === placeholder.length && token.startsWith(beginning);
}
