import { LonghaulError } from '../../contracts/error-codes.ts';
import { LIMITS } from '../../contracts/limits.ts';
import type { AnswerSink, Provider, ProviderRequest, StoredRequest } from '../providers/port.ts';

/** An answer that is looked at when it has gone by. */
export class CollectedAnswer {
  #chunks: Buffer[] = [];
  #sizeBytes = 0;
  #isStream = false;
  status: number | undefined;

  head(status: number, headers: Record<string, string>): void {
    this.status = status;
    this.#isStream = /^text\/event-stream/i.test(headers['content-type'] ?? '');
  }

  push(chunk: Buffer): void {
    this.#sizeBytes += chunk.length;
    if (this.#sizeBytes <= LIMITS.recordedCallBytes) this.#chunks.push(chunk);
    else this.#chunks = [];
  }

  /** The response object, as it was told last; undefined when there is none to read. */
  response(): Record<string, unknown> | undefined {
    const text = Buffer.concat(this.#chunks).toString('utf8');
    if (!this.#isStream) return objectIn(text);
    // The last event that holds the whole object is the last word about it.
    const event = text.split('\n').findLast((line) => line.startsWith('data:') && line.includes('"response":{'));
    return event === undefined ? undefined : (objectIn(event.slice(5))?.['response'] as Record<string, unknown>);
  }
}

/** The options of a call that asks for a stored answer; `collected` hears what comes. */
export function storedCall(
  provider: Provider,
  stored: StoredRequest,
  collected?: CollectedAnswer,
): { provider: Provider; request: ProviderRequest; isStream: boolean } {
  return {
    isStream: /[?&]stream=true(&|$)/.test(stored.search),
    provider: {
      name: provider.name,
      start: (_request, sink) => {
        const hears = collected === undefined ? sink : listening(sink, collected);
        if (provider.stored !== undefined) return provider.stored(stored, hears);
        throw new LonghaulError('not_found', 'this provider keeps no responses');
      },
      close: () => Promise.resolve(),
    },
    request: {
      protocol: 'responses',
      operation: 'generate',
      model: '',
      body: Buffer.alloc(0),
      headers: stored.headers,
      search: stored.search,
      sessionId: undefined,
    },
  };
}

function listening(sink: AnswerSink, collected: CollectedAnswer): AnswerSink {
  return {
    onHead: (status, headers, served) => {
      collected.head(status, headers);
      sink.onHead(status, headers, served);
    },
    onData: (chunk) => {
      collected.push(chunk);
      return sink.onData(chunk);
    },
    onEnd: () => sink.onEnd(),
    onFailure: (error, billed) => sink.onFailure(error, billed),
  };
}

function objectIn(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
