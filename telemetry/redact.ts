/** Content of one attribute at most; what is longer loses its middle. */
const MAX_ATTRIBUTE_CHARS = 16_384;
/** Beyond this no pattern is tried: the rest is cut first. */
const MAX_SCANNED_CHARS = 262_144;
const CENSOR = '[redacted]';

/** Things that look like a secret wherever they stand. Each is linear in the text: no nested repetition. */
const SECRETS: readonly RegExp[] = [
  /-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----[\s\S]{0,20000}?(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|$)/g,
  // Ours, Anthropic's and OpenAI's keys, and those built like them.
  /\b(?:lhv|lh|sk|pk|rk)[-_][A-Za-z0-9_-]{16,}/g,
  /\b(?:ghp|gho|ghu|ghs|ghr|glpat|xoxb|xoxa|xoxp|xoxr|xoxs|npm|hf|dop_v1|shpat|whsec)[-_][A-Za-z0-9_-]{10,}/g,
  /\bgithub_pat_[A-Za-z0-9_]{20,}/g,
  /\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b/g,
  /\bAIza[A-Za-z0-9_-]{30,}/g,
  /\bya29\.[A-Za-z0-9_-]{20,}/g,
  /\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*/g,
];
/** Named things: the name stays, the value goes. */
const NAMED: readonly RegExp[] = [
  /(\b(?:authorization|proxy-authorization)\\?["']?\s*[:=]\s*\\?["']?(?:bearer|basic|token)?\s*)[^\s"'\\,;]{6,}/gi,
  /(\bbearer\s+)[A-Za-z0-9._~+/=-]{12,}/gi,
  /([A-Za-z0-9_.-]{0,40}(?:password|passwd|secret|api[-_]?key|access[-_]?key|private[-_]?key|auth[-_]?token|access[-_]?token|refresh[-_]?token|client[-_]?secret|credentials?)\\?["']?\s*[:=]\s*\\?["']?)[^\s"'\\,;&]{4,}/gi,
  /(\b[a-z][a-z0-9+.-]{1,20}:\/\/[^\s:/@"']{0,100}:)[^\s@/"']{1,200}(?=@)/gi,
];

/** Takes what looks like a secret out of a text. It is a net, not a promise: content is off unless asked for. */
export function redact(text: string): string {
  let clean = text;
  for (const pattern of SECRETS) clean = clean.replace(pattern, CENSOR);
  for (const pattern of NAMED) clean = clean.replace(pattern, `$1${CENSOR}`);
  return clean;
}

/** Content as an attribute may carry it: without secrets, of bounded size. */
export function contentAttribute(value: unknown): { text: string; isChanged: boolean } {
  const whole = typeof value === 'string' ? value : (JSON.stringify(value) ?? '');
  const scanned = cut(whole, MAX_SCANNED_CHARS);
  const text = cut(redact(scanned), MAX_ATTRIBUTE_CHARS);
  return { text, isChanged: text !== whole };
}

/** Keeps both ends: the newest message and the beginning say most. */
function cut(text: string, maxChars: number): string {
  if (text.length <= maxChars) return text;
  const marker = `…[${text.length - maxChars} characters cut]…`;
  const kept = maxChars - marker.length;
  const head = Math.floor(kept / 2);
  return text.slice(0, head) + marker + text.slice(text.length - (kept - head));
}
