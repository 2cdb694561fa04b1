import { pino } from 'pino';
import { redactLine } from './redact.ts';

export type Logger = pino.Logger;

/** Fields of every line are stable: time, level, role, msg, then sessionId, turn, step, requestId where known. */
export function createLogger(role: string, level: string = 'info'): Logger {
  return pino({
    level,
    base: { role },
    timestamp: pino.stdTimeFunctions.isoTime,
    // What looks like a secret is taken out of the whole line, whatever put it there.
    hooks: { streamWrite: redactLine },
    formatters: { level: (label) => ({ level: label }) },
    // By path, as a second line: no secret is put into a log call in the first place.
    redact: {
      paths: ['authorization', '*.authorization', '*["x-api-key"]', 'apiKey', '*.apiKey', 'key', '*.key', '*.secret'],
      censor: '[redacted]',
    },
  });
}
