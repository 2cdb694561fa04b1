import { createHash } from 'node:crypto';

/** Claude takes UUIDs only: the same words always make the same one. */
export function uuidOf(words: string): string {
  const hex = createHash('sha256').update(`claude-code/${words}`).digest('hex');
  const variant = ((parseInt(hex.slice(16, 17), 16) & 0x3) | 0x8).toString(16);
  return [
    hex.slice(0, 8),
    hex.slice(8, 12),
    `4${hex.slice(13, 16)}`,
    `${variant}${hex.slice(17, 20)}`,
    hex.slice(20, 32),
  ].join('-');
}
