/** One event of a stream; `isPiece` marks those that carry a piece of the answer. */
export interface Frame {
  text: string;
  isPiece: boolean;
}

/** An event with a name line, as Messages and Responses streams have them. */
export function namedFrame(event: { type: string } & Record<string, unknown>, isPiece = false): Frame {
  return { text: `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`, isPiece };
}
