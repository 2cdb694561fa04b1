/** One attribute at most; one text inside it. */
const MAX_ATTRIBUTE_CHARS = 16_384;
const MAX_TEXT_CHARS = 4_096;
/** No pattern is tried on more of a text than this: the rest is cut first. */
const MAX_SCANNED_CHARS = 65_536;
const MAX_DEPTH = 20;
const CENSOR = '[redacted]';

/** Things that look like a secret wherever they stand. Each is linear in the text: no nested repetition. */
const SECRETS: readonly RegExp[] = [
  /-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----[\s\S]{0,20000}?(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|$)/g,
  // Ours, Anthropic's and OpenAI's keys, and those built like them.
  /\b(?:lhv|lh|sk|pk|rk)[-_][A-Za-z0-9_-]{16,}/g,
  /\b(?:ghp|gho|ghu|ghs|ghr|glpat|xoxb|xoxa|xoxp|xoxr|xoxs|npm|hf|shpat|whsec)[-_][A-Za-z0-9_-]{10,}/g,
  /\bgithub_pat_[A-Za-z0-9_]{20,}/g,
  /\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b/g,
  /\bAIza[A-Za-z0-9_-]{30,}/g,
  /\bya29\.[A-Za-z0-9_-]{20,}/g,
  /\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*/g,
];
const SECRET_WORD =
  'password|passwd|passphrase|secret|api[-_]?key|access[-_]?key|private[-_]?key|auth[-_]?token|access[-_]?token|refresh[-_]?token|credentials?';
/** Named things: the name stays, the value goes. */
const NAMED: readonly RegExp[] = [
  /(\b(?:proxy-)?authorization\\?["']?\s{0,5}[:=]\s{0,5}\\?["']?(?:(?:bearer|basic|token)\s{1,5})?)[^\s"'\\,;]{6,}/gi,
  /(\bbearer\s{1,5})[A-Za-z0-9._~+/=-]{12,}/gi,
  new RegExp(`((?:${SECRET_WORD})\\\\?["']?\\s{0,5}[:=]\\s{0,5}\\\\?["']?)[^\\s"'\\\\,;&]{4,}`, 'gi'),
  // Credentials in a URL.
  /(:\/\/[^\s:/@"']{0,100}:)[^\s@/"']{1,200}(?=@)/g,
];
/** A field whose whole value is a secret. */
const SECRET_FIELD = new RegExp(`^[\\w.-]{0,40}(?:${SECRET_WORD}|authorization)$`, 'i');

/** Tokens whose beginning says what they are. */
const CERTAIN: readonly RegExp[] = [
  /\b(?:ghp|gho|ghu|ghs|ghr)_[A-Za-z0-9]{36,}\b/g,
  /\bgithub_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{40,}/g,
  /\b(?:glpat|gldt|glrt)-[A-Za-z0-9_-]{20,}/g,
  /\bxox[abeprs]-[A-Za-z0-9-]{20,}/g,
  /\bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}/g,
  /\bAIza[A-Za-z0-9_-]{35}/g,
  /\bya29\.[A-Za-z0-9_-]{20,}/g,
  /\bAGE-SECRET-KEY-1[A-Z0-9]{50,}/g,
  /\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b/g,
  /\beyJ[A-Za-z0-9_-]{16,}\.eyJ[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}/g,
];
/** Beginnings that names have as well: what follows is looked at. */
const LIKELY =
  /\b(?:lhv|lhk|lh|sk|pk|rk|npm|pypi|hf|gsk|xai|xapp|dop_v1|doo_v1|shpat|shpss|whsec|dckr_pat|lin_api|figd|ntn|r8)[-_][A-Za-z0-9_-]{16,}/g;
const PRIVATE_KEY =
  /-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----\s{1,5}[A-Za-z0-9+/=\s]{40,20000}(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|$)/g;
const ASSIGNED = new RegExp(
  `((?:${SECRET_WORD}|token)["']?\\s{0,5}[:=]\\s{0,5}["']?)([A-Za-z0-9+/_.~=-]{20,256})(?![A-Za-z0-9+/_.~=(-])`,
  'gi',
);
const URL_PASSWORD = /(\b[a-z][a-z0-9+.-]{1,20}:\/\/[^\s:/@"']{0,100}:)([^\s@/"']{8,200})(?=@)/g;

/**
 * Takes out only what is a secret with near certainty: for texts an agent works with, where a wrong find breaks its work.
 * `keep`: texts that look like secrets and are none, as placeholders.
 */
export function redactTokens(text: string, keep: readonly string[] = []): string {
  const isKept = (token: string): boolean => keep.some((one) => token.includes(one) || one.includes(token));
  const unless = (token: string, body: string): string => (isKept(token) || !isRandom(body) ? token : CENSOR);
  let clean = text.replace(PRIVATE_KEY, CENSOR);
  for (const pattern of CERTAIN) clean = clean.replace(pattern, (token) => (isKept(token) ? token : CENSOR));
  return clean
    .replace(LIKELY, (token) => unless(token, token.replace(/^[A-Za-z]+[-_]/, '')))
    .replace(ASSIGNED, (whole: string, name: string, value: string) =>
      isKept(value) || !isRandom(value) ? whole : name + CENSOR,
    )
    .replace(URL_PASSWORD, (whole: string, before: string, value: string) =>
      isKept(value) || !isRandom(value) ? whole : before + CENSOR,
    );
}

const MIN_BITS = 3;

/** False for words, names, numbers, dates, versions and paths put together. */
function isRandom(text: string): boolean {
  if (/[/\\]|\.{2}/.test(text) && /^[\w.@~-]*\/[\w.@/~-]*$/.test(text) && !/\d.*\d.*\d/.test(text)) return false;
  const segments = text.split(/[-_./+=:~]/).filter((part) => part !== '');
  const isWordy = segments.every((part) =>
    /^(?:[A-Za-z]?[a-z]{0,19}|[A-Z]{1,20}|(?:[A-Z][a-z]{1,15}){1,6}|[a-z]{1,15}(?:[A-Z][a-z]{1,15}){1,6}|\d{1,20}|[a-z]{1,15}\d{1,4}|v\d+)$/.test(
      part,
    ),
  );
  if (isWordy) return false;
  const digits = text.match(/\d/g)?.length ?? 0;
  const switches = text.match(/[a-z](?=[A-Z])|[A-Z](?=[a-z])/g)?.length ?? 0;
  return (digits >= 2 || switches >= 5) && /[A-Za-z]/.test(text) && bitsOf(text) >= MIN_BITS;
}

/** Entropy of a character (Shannon), from how often each occurs. */
function bitsOf(text: string): number {
  const counts = new Map<string, number>();
  for (const letter of text) counts.set(letter, (counts.get(letter) ?? 0) + 1);
  let bits = 0;
  for (const count of counts.values()) bits -= (count / text.length) * Math.log2(count / text.length);
  return bits;
}

/** Takes what looks like a secret out of a text. It is a net, not a promise: content is off unless asked for. */
export function redact(text: string): string {
  let clean = text;
  for (const pattern of SECRETS) clean = clean.replace(pattern, CENSOR);
  for (const pattern of NAMED) clean = clean.replace(pattern, `$1${CENSOR}`);
  return clean;
}

/** Content as an attribute may carry it. */
export interface ContentAttribute {
  text: string;
  /** Something was cut or taken out. */
  isChanged: boolean;
}

/**
 * JSON without secrets and of bounded size. A list that is too long loses entries of its middle: beginning and newest say
 * most, and what is left can still be read as JSON.
 */
export function contentAttribute(value: unknown): ContentAttribute {
  const whole = JSON.stringify(value) ?? 'null';
  const clean = cleaned(value, 0);
  let text = JSON.stringify(clean) ?? 'null';
  if (text.length > MAX_ATTRIBUTE_CHARS && Array.isArray(clean)) text = withoutMiddle(clean);
  text = cut(text, MAX_ATTRIBUTE_CHARS);
  return { text, isChanged: text !== whole };
}

/** One line of a log, which stays JSON. */
export function redactLine(line: string): string {
  const clean = redact(line);
  if (clean === line || isJson(clean)) return clean;
  return isJson(line) ? `${JSON.stringify(cleaned(JSON.parse(line), 0))}\n` : clean;
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

function cleaned(value: unknown, depth: number): unknown {
  if (typeof value === 'string') return cut(redact(cut(value, MAX_SCANNED_CHARS)), MAX_TEXT_CHARS);
  if (typeof value !== 'object' || value === null) return value;
  if (depth >= MAX_DEPTH) return CENSOR;
  if (Array.isArray(value)) return value.map((entry) => cleaned(entry, depth + 1));
  return Object.fromEntries(
    Object.entries(value).map(([name, inner]) => [
      name,
      SECRET_FIELD.test(name) && typeof inner === 'string' ? CENSOR : cleaned(inner, depth + 1),
    ]),
  );
}

function withoutMiddle(entries: unknown[]): string {
  const texts = entries.map((entry) => JSON.stringify(entry) ?? 'null');
  const [first = '', ...rest] = texts;
  let room = MAX_ATTRIBUTE_CHARS - first.length - 80;
  let kept = 0;
  for (const text of rest.toReversed()) {
    room -= text.length + 1;
    if (room < 0) break;
    kept += 1;
  }
  const marker = JSON.stringify({ cut: rest.length - kept });
  return `[${[first, marker, ...rest.slice(rest.length - kept)].join(',')}]`;
}

function cut(text: string, maxChars: number): string {
  if (text.length <= maxChars) return text;
  const marker = `…[${text.length - maxChars} characters cut]…`;
  const kept = maxChars - marker.length;
  const head = Math.floor(kept / 2);
  return text.slice(0, head) + marker + text.slice(text.length - (kept - head));
}
