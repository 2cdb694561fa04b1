import { LIMITS } from '../../contracts/limits.ts';
import type { CachedAnswer } from '../../db/queries/cached-answers.ts';
import type { AnswerSink, Provider, RunningCall, Served } from '../providers/port.ts';

/** An answer as it was given; `model` is null when the provider that was asked answered itself. */
export type KeptAnswer = Omit<CachedAnswer, 'model'> & { model: string | null };

/** Where a good answer of the provider goes beside the caller. */
interface AnswerKeeper {
  keep(answer: KeptAnswer): void;
  /** There is none to keep; said again, or after `keep`, it changes nothing. */
  drop(): void;
}

/** The provider, whose one answer is also given to a keeper. `started` tells whether it was asked at all. */
export function keepingProvider(
  provider: Provider,
  keeper: AnswerKeeper,
): { provider: Provider; started: () => boolean } {
  let isStarted = false;
  return {
    started: () => isStarted,
    provider: {
      name: provider.name,
      start(request, sink): RunningCall {
        isStarted = true;
        return provider.start(request, new KeepingSink(sink, keeper, provider.name));
      },
      close: () => provider.close(),
    },
  };
}

class KeepingSink implements AnswerSink {
  readonly #sink: AnswerSink;
  readonly #keeper: AnswerKeeper;
  readonly #name: string;
  #head: Omit<KeptAnswer, 'body'> | undefined;
  #chunks: Buffer[] = [];
  #sizeBytes = 0;

  constructor(sink: AnswerSink, keeper: AnswerKeeper, name: string) {
    this.#sink = sink;
    this.#keeper = keeper;
    this.#name = name;
  }

  onHead(status: number, headers: Record<string, string>, served?: Served): void {
    const by = served ?? { deployment: null, provider: this.#name, model: null };
    // Rate limits and ids are those of that one call.
    if (status === 200) this.#head = { headers: { 'content-type': headers['content-type'] ?? '' }, ...by };
    else this.#keeper.drop();
    this.#sink.onHead(status, headers, served);
  }

  onData(chunk: Buffer): boolean {
    this.#sizeBytes += chunk.length;
    if (this.#sizeBytes <= LIMITS.cachedAnswerBytes) this.#chunks.push(chunk);
    else {
      this.#chunks = [];
      this.#keeper.drop();
    }
    return this.#sink.onData(chunk);
  }

  onEnd(): void {
    this.#sink.onEnd();
    if (this.#head === undefined || this.#sizeBytes > LIMITS.cachedAnswerBytes) this.#keeper.drop();
    else this.#keeper.keep({ ...this.#head, body: Buffer.concat(this.#chunks) });
  }

  onFailure(error: Error, billed: boolean): void {
    this.#keeper.drop();
    this.#sink.onFailure(error, billed);
  }
}
