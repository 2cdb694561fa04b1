/** Exit codes of every command. */
export const EXIT = { ok: 0, failed: 1, usage: 2, interrupted: 130 } as const;

/** Talk for people: stderr, so that stdout holds data only. */
export function say(line: string): void {
  process.stderr.write(`${line}\n`);
}

/** Data: stdout. */
export function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** Data for programs: one JSON document on stdout. */
export function printJson(value: unknown): void {
  print(JSON.stringify(value, null, 2));
}

/** The text of any thrown value. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** `1.4 s`, for progress lines. */
export function seconds(elapsedMs: number): string {
  return `${(elapsedMs / 1_000).toFixed(1)} s`;
}
