import type { AnswerSink, Provider, ProviderRequest } from './providers/port.ts';

/** More of an answer is not kept for a trace. */
const MAX_KEPT_BYTES = 128 * 1024;

/** Keeps the bytes of answers for as long as somebody may still ask for them; used only when traces carry content. */
export class AnswerKeeper {
  readonly #kept = new WeakMap<ProviderRequest, { chunks: Buffer[]; sizeBytes: number }>();

  /** The same provider, overheard. */
  watch(provider: Provider): Provider {
    return {
      name: provider.name,
      start: (request, sink) => provider.start(request, this.#overheard(request, sink)),
      only: (deployment) => {
        const one = provider.only?.(deployment);
        return one && this.watch(one);
      },
      close: () => provider.close(),
    };
  }

  answerTo(request: ProviderRequest): Buffer {
    return Buffer.concat(this.#kept.get(request)?.chunks ?? []);
  }

  #overheard(request: ProviderRequest, sink: AnswerSink): AnswerSink {
    const kept = { chunks: [] as Buffer[], sizeBytes: 0 };
    this.#kept.set(request, kept);
    return {
      onHead: (status, headers, served) => sink.onHead(status, headers, served),
      onData: (chunk) => {
        if (kept.sizeBytes + chunk.length <= MAX_KEPT_BYTES) kept.chunks.push(chunk);
        kept.sizeBytes += chunk.length;
        return sink.onData(chunk);
      },
      onEnd: () => sink.onEnd(),
      onFailure: (error, billed) => sink.onFailure(error, billed),
    };
  }
}
