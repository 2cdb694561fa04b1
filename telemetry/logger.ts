import { pino } from 'pino';

export type Logger = pino.Logger;

/** Fields of every line are stable: time, level, role, msg, then sessionId, turn, step, requestId where known. */
export function createLogger(role: string, level: string = 'info'): Logger {
  return pino({
    level,
    base: { role },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
    // By path, as a second line: no secret is put into a log call in the first place.
    redact: {
      paths: ['authorization', '*.authorization', '*["x-api-key"]', 'apiKey', '*.apiKey', 'key', '*.key', '*.secret'],
      censor: '[redacted]',
    },
  });
}
