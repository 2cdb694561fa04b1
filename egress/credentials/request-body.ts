import { Transform } from 'node:stream';
import type { SessionCredential } from '../../contracts/credentials.ts';
import { Automaton } from '../../telemetry/automaton.ts';

/** What happens to a placeholder in the body: a value takes its place, or the request is broken off. */
export interface BodyPlaceholder {
  credential: SessionCredential;
  /** Undefined: it may not stand there. */
  value: string | undefined;
}

/** How a value is written in the body. */
export type BodyForm = 'json' | 'form' | 'plain';

export function bodyFormOf(contentType: string | undefined): BodyForm {
  const type = (contentType ?? '').split(';', 1)[0]?.trim().toLowerCase() ?? '';
  if (type === 'application/x-www-form-urlencoded') return 'form';
  return type === 'application/json' || type.endsWith('+json') || type === 'application/x-ndjson' ? 'json' : 'plain';
}

/** The value as it has to stand in such a body. */
export function encodeFor(form: BodyForm, value: string): string {
  switch (form) {
    case 'json':
      return JSON.stringify(value).slice(1, -1);
    case 'form':
      return encodeURIComponent(value);
    case 'plain':
      return value;
  }
}

/**
 * Puts values in the place of placeholders while the body streams; only what may be the beginning of a placeholder is held
 * back. `onMisuse` gives the error that ends the request.
 */
export function swapBody(
  placeholders: readonly BodyPlaceholder[],
  form: BodyForm,
  onMisuse: (credential: SessionCredential) => Error,
): Transform {
  const automaton = new Automaton(placeholders.map(({ credential }) => Buffer.from(credential.placeholder)));
  const values = placeholders.map(({ value }) =>
    value === undefined ? undefined : Buffer.from(encodeFor(form, value)),
  );
  let state = 0;
  let held: Buffer = Buffer.alloc(0);
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      const { found, depth } = automaton;
      const text = held.length === 0 ? chunk : Buffer.concat([held, chunk]);
      const parts: Buffer[] = [];
      let from = 0;
      for (let at = held.length; at < text.length; at += 1) {
        state = automaton.step(state, text[at] ?? 0);
        const which = found[state] ?? -1;
        const entry = which < 0 ? undefined : placeholders[which];
        if (entry === undefined) continue;
        const value = values[which];
        if (value === undefined) return done(onMisuse(entry.credential));
        parts.push(text.subarray(from, at + 1 - entry.credential.placeholder.length), value);
        from = at + 1;
        state = 0;
      }
      const open = Math.max(from, text.length - (depth[state] ?? 0));
      parts.push(text.subarray(from, open));
      held = text.subarray(open);
      done(null, parts.length === 1 ? parts[0] : Buffer.concat(parts));
    },
    flush(done) {
      done(null, held);
    },
  });
}
