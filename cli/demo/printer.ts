import { inheritedEnvironment } from '../config.ts';
import { print } from '../output.ts';

type Style = 'bold' | 'dim' | 'green' | 'red' | 'yellow' | 'cyan';
const CODES: Record<Style, number> = { bold: 1, dim: 2, red: 31, green: 32, yellow: 33, cyan: 36 };
const TEXT_CHARS = 100;

/** Colours only for a terminal that wants them (no-color.org). */
function wantsColour(): boolean {
  const { NO_COLOR, TERM } = inheritedEnvironment() as { NO_COLOR?: string; TERM?: string };
  return process.stdout.isTTY && (NO_COLOR === undefined || NO_COLOR === '') && TERM !== 'dumb';
}

/** The demo's output: plain lines that also read well in a log file. */
export class Printer {
  readonly #colour = wantsColour();
  readonly #startedMs = Date.now();

  style(style: Style, text: string): string {
    return this.#colour ? `\u001b[${CODES[style]}m${text}\u001b[0m` : text;
  }

  title(text: string): void {
    print(`\n${this.style('bold', text)}`);
  }

  line(text: string): void {
    print(`  ${text}`);
  }

  /** One line of the timeline: seconds since the start, who, what. */
  event(who: string, text: string, style?: Style): void {
    const time = this.style('dim', `${((Date.now() - this.#startedMs) / 1_000).toFixed(1).padStart(6)} s`);
    const actor = who.padEnd(9);
    print(`${time}  ${style === undefined ? actor : this.style(style, actor)} ${text}`);
  }
}

/** Text of any length as one short line. */
export function oneLine(text: string, maxChars: number = TEXT_CHARS): string {
  const flat = text.replaceAll(/\s+/g, ' ').trim();
  return flat.length <= maxChars ? flat : `${flat.slice(0, maxChars - 1)}…`;
}

/** Micro-dollars as dollars. */
export function dollars(costMicros: number | null): string {
  return costMicros === null ? 'unknown' : `$${(costMicros / 1_000_000).toFixed(6)}`;
}
