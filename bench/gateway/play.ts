/** Tells a provider double from a request what to answer: it must pass the gateway, so it is part of the body. */
export interface Play {
  /** Pieces of the answer's text; absent: one JSON answer. */
  events?: number;
  /** Pause between two pieces. */
  paceMs?: number;
}

const MARK = 'play:';

/** The value of `metadata.user_id` that asks for a play. */
export const playMark = ({ events = 0, paceMs = 0 }: Play): string => `${MARK}${events},${paceMs};`;

/** What the body of a request asks for. */
export function readPlay(body: Buffer): Required<Play> {
  const start = body.indexOf(MARK);
  const [events = 0, paceMs = 0] =
    start === -1
      ? []
      : body
          .toString('latin1', start + MARK.length, body.indexOf(';', start))
          .split(',')
          .map(Number);
  return { events, paceMs };
}
