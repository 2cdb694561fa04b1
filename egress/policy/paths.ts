/**
 * The one reading of a path, or undefined where two servers could read it as two: encoded slashes and dots, `..`, backslashes,
 * empty segments, double encoding, control characters, bytes that are no UTF-8.
 */
export function canonicalPath(path: string): string | undefined {
  if (!path.startsWith('/')) return undefined;
  if (/%(?:2f|5c|2e|25|[01][0-9a-f]|7f)/i.test(path) || /%(?![0-9a-f]{2})/i.test(path)) return undefined;
  let decoded: string;
  try {
    decoded = decodeURIComponent(path);
  } catch {
    return undefined;
  }
  if (decoded.includes('\\') || decoded.includes('//') || /\p{Cc}/u.test(decoded)) return undefined;
  // `/..;/` is a step up for some servers.
  if (decoded.split('/').some((segment) => /^\.{1,2}(?:;.*)?$/.test(segment))) return undefined;
  return decoded;
}

/** A glob over segments: `*` within one, `**` for any number of them. Linear in practice, quadratic at worst. */
export function pathMatches(glob: string, path: string): boolean {
  return match(glob.split('/'), path.split('/'), '**', segmentMatches);
}

/** A path of a credential: exact, or everything that begins with what stands before a `*` at its end. */
export function prefixMatches(pattern: string, path: string): boolean {
  return pattern.endsWith('*') ? path.startsWith(pattern.slice(0, -1)) : path === pattern;
}

function segmentMatches(glob: string, segment: string): boolean {
  if (!glob.includes('*')) return glob === segment;
  return match(glob.split(''), segment.split(''), '*', (a, b) => a === b);
}

/** Wildcard matching that only ever goes back to the last star. */
function match(glob: string[], text: string[], star: string, isSame: (a: string, b: string) => boolean): boolean {
  let at = 0;
  let from = 0;
  let lastStar = -1;
  let retry = 0;
  while (from < text.length) {
    const piece = glob[at];
    if (piece === star) {
      lastStar = at;
      retry = from;
      at += 1;
    } else if (piece !== undefined && isSame(piece, text[from] ?? '')) {
      at += 1;
      from += 1;
    } else if (lastStar >= 0) {
      at = lastStar + 1;
      retry += 1;
      from = retry;
    } else return false;
  }
  while (glob[at] === star) at += 1;
  return at === glob.length;
}
