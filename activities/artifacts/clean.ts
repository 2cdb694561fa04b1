const WINDOW_BYTES = 1024 * 1024;
/** A line longer than this is cut for the search. */
const LONGEST_BYTES = 2 * WINDOW_BYTES;
const NEWLINE = 10;

/**
 * A stream without secrets, when it is text: cleaned by windows that end with a line. What has a NUL in its first window is
 * taken for binary and passes as it is: to take bytes out of it would break it.
 */
export async function* cleanStream(
  content: AsyncIterable<Uint8Array>,
  clean: (text: string) => Promise<string>,
): AsyncIterable<Uint8Array> {
  let isText: boolean | undefined;
  for await (const window of windowsOf(content)) {
    isText ??= !window.includes(0);
    yield isText ? await cleaned(window, clean) : window;
  }
}

async function cleaned(window: Buffer, clean: (text: string) => Promise<string>): Promise<Uint8Array> {
  const text = window.toString('utf8');
  // Other encodings: every byte is a character, so that what is found is taken out and the rest stays what it was.
  const encoding = Buffer.from(text, 'utf8').equals(window) ? 'utf8' : 'latin1';
  const given = encoding === 'utf8' ? text : window.toString('latin1');
  const answer = await clean(given);
  return answer === given ? window : Buffer.from(answer, encoding);
}

async function* windowsOf(content: AsyncIterable<Uint8Array>): AsyncIterable<Buffer> {
  let waiting: Buffer[] = [];
  let sizeBytes = 0;
  for await (const chunk of content) {
    waiting.push(Buffer.from(chunk));
    sizeBytes += chunk.length;
    if (sizeBytes < WINDOW_BYTES) continue;
    const all = Buffer.concat(waiting, sizeBytes);
    const end = all.lastIndexOf(NEWLINE) + 1;
    if (end === 0 && sizeBytes < LONGEST_BYTES) {
      waiting = [all];
      continue;
    }
    const cut = end === 0 ? all.length : end;
    yield all.subarray(0, cut);
    waiting = [all.subarray(cut)];
    sizeBytes = all.length - cut;
  }
  if (sizeBytes > 0) yield Buffer.concat(waiting, sizeBytes);
}
